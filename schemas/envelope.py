"""What every record on the log has: a kind, a version, an id, a time, an origin and a number of hops."""

import hashlib
from datetime import UTC, datetime
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from schemas.names import PlaceName

MAX_HOPS = 8  # a chain of rules longer than this is a mistake or a loop


def _in_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a time needs a zone")
    return value.astimezone(UTC)


Time = Annotated[datetime, AfterValidator(_in_utc)]


class Record(BaseModel):
    """The frozen base of all records.

    Unknown fields are kept, so that records of a newer minor version pass through older code unchanged.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    kind: ClassVar[str]
    major: ClassVar[int] = 1

    version: str = "1.0"
    id: str = Field(min_length=1, max_length=128)
    time: Time
    origin: PlaceName | None = None  # where the content was first pushed; None for declared state
    hops: int = Field(default=0, ge=0, le=MAX_HOPS)


def make_id(*parts: str | int | None) -> str:
    """Returns an id derived from its parts: the same parts give the same id on every node, after every restart."""
    text = "\x1f".join("" if part is None else str(part) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
