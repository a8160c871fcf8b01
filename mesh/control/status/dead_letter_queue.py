"""The open dead letters of one region: those that nobody has marked as dealt with. Pure.

The newest hundred are kept, each with its number of repeats. Of older ones only the number and the last time are kept,
so memory is bounded however many there are.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from schemas.dead_letters import DeadLetter, DealtWith

_KEPT = 100
_PAYLOAD_BYTES = 2048  # of each


@dataclass(frozen=True, slots=True)
class KeptDeadLetter:
    """The last copy of a dead letter, and how often it came."""

    dead_letter: DeadLetter
    count: int


@dataclass(frozen=True, slots=True)
class OlderDeadLetters:
    """The number of dead letters of one origin that are no longer kept."""

    count: int
    last: datetime


@dataclass(slots=True)
class DeadLetterQueue:
    """The origin of a dead letter is `notifications/<instance>`, or the topic that held the record."""

    newest: dict[str, KeptDeadLetter] = field(default_factory=dict)  # by id, the newest last
    older: dict[str, OlderDeadLetters] = field(default_factory=dict)  # by origin

    def add(self, dead_letter: DeadLetter) -> None:
        """Adds a dead letter, or counts it as a repeat of the one with its id."""
        before = self.newest.pop(dead_letter.id, None)
        payload = DeadLetter.encode_payload(dead_letter.payload_bytes()[:_PAYLOAD_BYTES])
        cut = dead_letter.model_copy(update={"payload": payload})
        self.newest[dead_letter.id] = KeptDeadLetter(cut, 1 + (before.count if before is not None else 0))
        if len(self.newest) > _KEPT:
            self._only_count(self.newest.pop(next(iter(self.newest))))

    def close(self, dealt_with: DealtWith) -> None:
        """Removes what a human has dealt with. A repeat that comes later counts as a new dead letter."""
        if dealt_with.letter is not None:
            self.newest.pop(dealt_with.letter, None)
            return
        until = dealt_with.until
        self.newest = {
            key: one for key, one in self.newest.items() if not _is_until(one.dead_letter.time, until)
        }
        self.older = {origin: one for origin, one in self.older.items() if not _is_until(one.last, until)}

    def count_until(self, until: datetime | None) -> int:
        """Returns how many `close` would remove; a dead letter that was repeated later is not among them."""
        return sum(count for _, count, last in self._all() if _is_until(last, until))

    @property
    def counts(self) -> Counter[str]:
        """The number of dead letters by origin."""
        found = Counter[str]()
        for origin, count, _ in self._all():
            found[origin] += count
        return found

    def last(self, origin: str) -> datetime:
        """Returns the time of the last dead letter of an origin in `counts`."""
        return max(last for it, _, last in self._all() if it == origin)

    def last_reason(self, origin: str) -> str | None:
        """Returns the reason of the last dead letter of an origin; None when none of them is kept."""
        dead_letters = (kept.dead_letter for kept in reversed(self.newest.values()))
        return next((one.reason for one in dead_letters if _origin_of(one) == origin), None)

    def _all(self) -> Iterator[tuple[str, int, datetime]]:
        """Yields origin, number and last time."""
        for kept in self.newest.values():
            yield _origin_of(kept.dead_letter), kept.count, kept.dead_letter.time
        for origin, older in self.older.items():
            yield origin, older.count, older.last

    def _only_count(self, kept: KeptDeadLetter) -> None:
        origin, time = _origin_of(kept.dead_letter), kept.dead_letter.time
        before = self.older.get(origin, OlderDeadLetters(0, time))
        self.older[origin] = OlderDeadLetters(before.count + kept.count, max(before.last, time))


def _origin_of(dead_letter: DeadLetter) -> str:
    return dead_letter.position.partition("[")[0]


def _is_until(time: datetime, until: datetime | None) -> bool:
    return until is None or time <= until
