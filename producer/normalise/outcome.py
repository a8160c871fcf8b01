"""What a normaliser takes and gives: values only, and no exceptions, since what cannot be read is an outcome too."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from schemas.events import Event
from schemas.topology import Instance


@dataclass(frozen=True, slots=True)
class Context:
    """Who spoke, when we heard it, and how new our rules were then."""

    instance: Instance
    rules_rev: int
    received_at: datetime
    headers: Mapping[str, str] = field(default_factory=dict)  # those that describe the event; lower case


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Bytes for a dead letter, and why."""

    raw: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Normalised:
    events: tuple[Event, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    ignored: int = 0  # well-formed, but nothing that we act on: pulls, actions of a newer registry


class Normalise(Protocol):
    """Never raises, whatever the bytes are."""

    def __call__(self, body: bytes, context: Context) -> Normalised: ...
