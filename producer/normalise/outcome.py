"""The input and the result of a normaliser: values only, no exceptions, since unreadable bytes are a result too."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from schemas.events import Event
from schemas.topology import Instance


@dataclass(frozen=True, slots=True)
class Context:
    """Which instance sent a notification, when it arrived, and the revision of the rules at that time.

    `headers` are the descriptive ones, with lower-case names.
    """

    instance: Instance
    rules_rev: int
    received_at: datetime
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The bytes of a dead letter, and the reason."""

    raw: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Normalised:
    """What a notification contains.

    `ignored` counts valid events that need no action, such as pulls. `process` is the name of the registry's process
    that sent it; None when the notification does not say.
    """

    events: tuple[Event, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    ignored: int = 0
    process: str | None = None


class Normalise(Protocol):
    """Parses the body of a notification. Never raises, whatever the bytes are."""

    def __call__(self, body: bytes, context: Context) -> Normalised: ...
