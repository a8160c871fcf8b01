"""Dead letters of all regions, followed into memory: how many of each reason, and the newest of them whole."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from mesh.clock import Clock
from mesh.control.each_region import EachRegion
from mesh.log.port import Log, Record
from mesh.log.table import Table
from mesh.rules.state import MeshState
from schemas import codec, topics
from schemas.dead_letters import DeadLetter
from schemas.names import Region

LOG = structlog.get_logger()

_NEWEST = 100  # of a region, kept with a piece of their bytes
_SHOWN_BYTES = 2048


@dataclass(slots=True)
class Mailbox:
    """What one region's topic holds. `counts` is by where it came from: `notifications/<instance>`, or a topic."""

    counts: Counter[str] = field(default_factory=Counter)
    newest: deque[DeadLetter] = field(default_factory=lambda: deque(maxlen=_NEWEST))
    last: dict[str, datetime] = field(
        default_factory=dict
    )  # by where it came from, when the last one was buried

    def take(self, letter: DeadLetter) -> None:
        origin = origin_of(letter)
        self.counts[origin] += 1
        self.last[origin] = max(letter.time, self.last.get(origin, letter.time))
        payload = DeadLetter.encode_payload(letter.payload_bytes()[:_SHOWN_BYTES])
        self.newest.append(letter.model_copy(update={"payload": payload}))


class Letters:
    """A view."""

    def __init__(self, *, log: Log, state: MeshState, clock: Clock, random: Callable[[], float]) -> None:
        self._log, self._clock, self._random = log, clock, random
        self._boxes: dict[Region, Mailbox] = {}
        self._regions = EachRegion(
            "dead_letters", topic_of=topics.dead_letters, open_table=self._table,
            close=lambda region: self._boxes.pop(region, None), log=log, state=state, clock=clock, random=random,
        )  # fmt: skip

    async def run(self) -> None:
        """Follow for ever."""
        await self._regions.run()

    def boxes(self) -> dict[Region, Mailbox]:
        return dict(self._boxes)

    def newest(self) -> list[tuple[Region, DeadLetter]]:
        """Of all regions, the newest first."""
        letters = [(region, letter) for region, box in self._boxes.items() for letter in box.newest]
        return sorted(letters, key=lambda it: it[1].time, reverse=True)

    def _table(self, topic: str, region: Region) -> Table:
        box = self._boxes[region] = Mailbox()

        def apply(record: Record) -> None:
            if record.value is not None:
                box.take(codec.decode(record.value, DeadLetter))

        return Table(self._log, topic, apply, unreadable=self._ignore, clock=self._clock, random=self._random)

    async def _ignore(self, record: Record, reason: str) -> None:
        """It is buried already; a second grave would help nobody."""
        LOG.warning(
            "dead letter unreadable", action="letter_unreadable", position=record.position, reason=reason
        )


def origin_of(letter: DeadLetter) -> str:
    """`notifications/<instance>`, or the topic in which the record stood."""
    return letter.position.partition("[")[0]
