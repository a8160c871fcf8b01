"""Dead letters: records and payloads that could not be read, kept until an operator has dealt with them."""

import base64
from typing import ClassVar

from pydantic import Field

from schemas.envelope import Record, Time

MAX_BYTES = 256 * 1024  # of a payload; dead letters are for people, who need no more of it


class DeadLetter(Record):
    """An unreadable payload with the reason and its position. Topic `mesh.<region>.dead-letters`, the source's key."""

    kind: ClassVar[str] = "dead_letter"

    reason: str = Field(max_length=1024)
    position: str  # topic[partition]@offset, or notifications/<instance>
    payload: str  # base64 of the bytes, cut to 256 KiB
    payload_size: int = Field(ge=0)  # before the cut

    @staticmethod
    def encode_payload(raw: bytes) -> str:
        """Returns the value of `payload` for these bytes."""
        return base64.b64encode(raw[:MAX_BYTES]).decode()

    def payload_bytes(self) -> bytes:
        """Returns the bytes, cut to 256 KiB."""
        return base64.b64decode(self.payload)


class DealtWith(Record):
    """An operator has dealt with dead letters that precede this record in the same topic: with one, or with all.

    A later dead letter with the same id is a new one.
    """

    kind: ClassVar[str] = "dealt_with"

    letter: str | None = None  # the id of the dead letter; None = all
    until: Time | None = None  # of all, only those up to this time

    @property
    def key(self) -> str:
        """Returns the id of the dead letter, or `all`."""
        return self.letter or "all"
