"""Which bytes of a blob a response contains, and how the rest of them is requested elsewhere (RFC 9110, section 14)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(?:\d{1,18}|\*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes from `first` to `last`, both included; None = to the end, wherever it is."""

    first: int
    last: int | None

    def after(self, count: int) -> "ByteRange":
        """Returns the range without its first `count` bytes."""
        return ByteRange(self.first + count, self.last)

    @property
    def header(self) -> str:
        """Returns the value of the Range header."""
        return f"bytes={self.first}-{'' if self.last is None else self.last}"

    @property
    def is_empty(self) -> bool:
        """Returns whether no bytes are left."""
        return self.last is not None and self.first > self.last


def byte_range_of(status: int, headers: Mapping[str, str]) -> ByteRange | None:
    """Returns the range in a response to a GET; None when it has several, or the blob in another encoding."""
    if headers.get("Content-Encoding", "identity") != "identity":
        return None
    if status == 200:
        length = headers.get("Content-Length", "")
        return ByteRange(0, int(length) - 1 if length.isascii() and length.isdigit() else None)
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "")) if status == 206 else None
    return ByteRange(int(found[1]), int(found[2])) if found else None


def to_skip(wanted: ByteRange, status: int, headers: Mapping[str, str]) -> int | None:
    """Returns how many bytes of a response precede the wanted ones; None when it does not contain all of these.

    A place without support for ranges sends the whole blob, which contains them too.
    """
    got = byte_range_of(status, headers)
    if got is None or got.first not in (0, wanted.first):
        return None
    if wanted.last is not None and got.last is not None and got.last < wanted.last:
        return None
    return wanted.first - got.first
