"""What one region's topic of dead letters holds, and what of it a human has not dealt with yet. Pure.

However many letters there are, the newest hundred are kept, a repeat with the one it repeats; of older ones how many
and when the last.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from schemas.dead_letters import DeadLetter, DealtWith

_NEWEST = 100  # kept with a piece of their bytes
_SHOWN_BYTES = 2048


@dataclass(frozen=True, slots=True)
class Kept:
    """A letter as it was buried last, and how often it was."""

    dead_letter: DeadLetter
    count: int


@dataclass(frozen=True, slots=True)
class Older:
    """Letters of one origin that are not kept."""

    count: int
    last: datetime


@dataclass(slots=True)
class DeadLetterQueue:
    """An origin is where letters came from: `notifications/<instance>`, or the topic in which a record stood."""

    newest: dict[str, Kept] = field(default_factory=dict)  # by id, the last buried last
    older: dict[str, Older] = field(default_factory=dict)  # by origin

    def take(self, dead_letter: DeadLetter) -> None:
        before = self.newest.pop(dead_letter.id, None)
        payload = DeadLetter.encode_payload(dead_letter.payload_bytes()[:_SHOWN_BYTES])
        cut = dead_letter.model_copy(update={"payload": payload})
        self.newest[dead_letter.id] = Kept(cut, 1 + (before.count if before is not None else 0))
        if len(self.newest) > _NEWEST:
            self._let_go(self.newest.pop(next(iter(self.newest))))

    def deal(self, dealt: DealtWith) -> None:
        """Forget what a human has dealt with. What is buried after this counts anew, a repeat too."""
        if dealt.letter is not None:
            self.newest.pop(dealt.letter, None)
            return
        until = dealt.until
        self.newest = {
            it: one for it, one in self.newest.items() if not _is_over(one.dead_letter.time, until)
        }
        self.older = {origin: one for origin, one in self.older.items() if not _is_over(one.last, until)}

    def count_until(self, until: datetime | None) -> int:
        """How many `deal` would forget; a letter that was repeated later is not among them."""
        return sum(count for _, count, last in self._all() if _is_over(last, until))

    @property
    def counts(self) -> Counter[str]:
        """By origin."""
        found = Counter[str]()
        for origin, count, _ in self._all():
            found[origin] += count
        return found

    def last(self, origin: str) -> datetime:
        """When the last of an origin that is in `counts` was buried."""
        return max(last for it, _, last in self._all() if it == origin)

    def last_reason(self, origin: str) -> str | None:
        """Of that one; None when none of it is kept."""
        dead_letters = (kept.dead_letter for kept in reversed(self.newest.values()))
        return next((one.reason for one in dead_letters if origin_of(one) == origin), None)

    def _all(self) -> Iterator[tuple[str, int, datetime]]:
        """Origin, how many, and when the last."""
        yield from (
            (origin_of(one.dead_letter), one.count, one.dead_letter.time) for one in self.newest.values()
        )
        yield from ((origin, one.count, one.last) for origin, one in self.older.items())

    def _let_go(self, kept: Kept) -> None:
        origin, time = origin_of(kept.dead_letter), kept.dead_letter.time
        before = self.older.get(origin, Older(0, time))
        self.older[origin] = Older(before.count + kept.count, max(before.last, time))


def origin_of(dead_letter: DeadLetter) -> str:
    """`notifications/<instance>`, or the topic in which the record stood."""
    return dead_letter.position.partition("[")[0]


def _is_over(time: datetime, until: datetime | None) -> bool:
    return until is None or time <= until
