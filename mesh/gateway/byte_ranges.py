"""Which bytes of a blob an answer holds, and how the rest of them is asked for elsewhere. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(?:\d{1,18}|\*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """From byte `first` to byte `last`; None = to the end, wherever it is."""

    first: int
    last: int | None

    def after(self, count: int) -> "ByteRange":
        return ByteRange(self.first + count, self.last)

    @property
    def header(self) -> str:
        return f"bytes={self.first}-{'' if self.last is None else self.last}"

    @property
    def is_over(self) -> bool:
        return self.last is not None and self.first > self.last


def byte_range_of(status: int, headers: Mapping[str, str]) -> ByteRange | None:
    """Of an answer to a GET; None when it is not one stretch of the blob, or of the blob packed in some way."""
    if headers.get("Content-Encoding", "identity") != "identity":
        return None
    if status == 200:
        length = headers.get("Content-Length", "")
        return ByteRange(0, int(length) - 1 if length.isascii() and length.isdigit() else None)
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "")) if status == 206 else None
    return ByteRange(int(found[1]), int(found[2])) if found else None


def to_skip(wanted: ByteRange, status: int, headers: Mapping[str, str]) -> int | None:
    """How many bytes of an answer come before what is `wanted`; None when it does not hold just that.

    A place that does not know ranges sends all of it, which holds it too.
    """
    got = byte_range_of(status, headers)
    if got is None or got.first not in (0, wanted.first):
        return None
    if wanted.last is not None and got.last is not None and got.last < wanted.last:
        return None
    return wanted.first - got.first
