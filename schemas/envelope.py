"""What every record on the log has: a kind, a version, an id, a time, an origin and hops."""

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
    """The frozen base of everything on the log.

    Unknown fields are kept: a record of a newer minor version passes through old code whole.
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
    """A deterministic id of its parts: the same parts give the same id on every node, after every restart."""
    text = "\x1f".join("" if part is None else str(part) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
