"""What could not be read: kept, with the reason and where it stood, until a human has dealt with it."""

import base64
from typing import ClassVar

from pydantic import Field

from schemas.envelope import Record, Time

MAX_BYTES = 256 * 1024  # a letter is for a human; the rest of an oversized body is not kept


class DeadLetter(Record):
    """Bytes, reason and position of a record or payload. Topic `mesh.<region>.dead-letters`, keyed as the source."""

    kind: ClassVar[str] = "dead_letter"

    reason: str = Field(max_length=1024)
    position: str  # topic[partition]@offset, or notifications/<instance>
    payload: str  # base64 of the bytes, cut to 256 KiB
    payload_size: int = Field(ge=0)  # before the cut

    @staticmethod
    def encode_payload(raw: bytes) -> str:
        return base64.b64encode(raw[:MAX_BYTES]).decode()

    def payload_bytes(self) -> bytes:
        return base64.b64decode(self.payload)


class DealtWith(Record):
    """A human is done with letters that stand before this record, in the same topic: with one, or with all of a time.

    A letter that is buried again after it, with the same id, is news.
    """

    kind: ClassVar[str] = "dealt_with"

    letter: str | None = None  # its id; None = all
    until: Time | None = None  # of all, only those that were buried until then

    @property
    def key(self) -> str:
        return self.letter or "all"
