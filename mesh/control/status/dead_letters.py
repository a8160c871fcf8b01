"""Dead letters of all regions, followed into memory; and what a human says of them: dealt with."""

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog

from mesh.clock import Clock
from mesh.control.readers.each_region import EachRegion
from mesh.control.status.dead_letter_queue import DeadLetterQueue, Kept
from mesh.errors import LogUnavailable
from mesh.log.port import Append, Log, Record
from mesh.log.table import Table
from mesh.rules.state import MeshState
from schemas import codec, topics
from schemas.dead_letters import DeadLetter, DealtWith
from schemas.envelope import make_id
from schemas.names import Region

LOG = structlog.get_logger()

_LONGEST_WAIT = 10.0  # seconds for our own table to come as far as the log


class DeadLetters:
    """`deal_with_one` and `deal_with_all` raise `LogError`. What they write outlives the letters, beside them."""

    def __init__(self, *, log: Log, state: MeshState, clock: Clock, random: Callable[[], float]) -> None:
        self._log, self._clock, self._random = log, clock, random
        self._boxes: dict[Region, DeadLetterQueue] = {}
        self._tables: dict[Region, Table] = {}
        self._regions = EachRegion(
            "dead_letters", topic_of=topics.dead_letters, open_table=self._table, close=self._close, log=log,
            state=state, clock=clock, random=random,
        )  # fmt: skip

    async def run(self) -> None:
        """Follow for ever."""
        await self._regions.run()

    def boxes(self) -> dict[Region, DeadLetterQueue]:
        return dict(self._boxes)

    def newest(self) -> list[tuple[Region, Kept]]:
        """Of all regions, the newest first."""
        found = [(region, kept) for region, box in self._boxes.items() for kept in box.newest.values()]
        return sorted(found, key=lambda it: it[1].dead_letter.time, reverse=True)

    async def deal_with_one(self, number: str) -> bool:
        """One of `newest`, with its repeats up to now; False when it is none of them."""
        region = next((region for region, box in self._boxes.items() if number in box.newest), None)
        if region is not None:
            await self._write(region, dead_letter=number)
        return region is not None

    async def deal_with_all(self, until: datetime | None) -> int:
        """All that were buried until then, or until now; how many."""
        found = {region: box.count_until(until) for region, box in self._boxes.items()}
        for region, count in found.items():
            if count:
                await self._write(region, until=until)
        return sum(found.values())

    async def _write(
        self, region: Region, *, dead_letter: str | None = None, until: datetime | None = None
    ) -> None:
        """Then wait until it is seen here, so that whoever asks next is told nothing of it any more."""
        now = self._clock.now()
        number = make_id(
            "dealt_with", region, dead_letter, None if until is None else until.isoformat(), now.isoformat()
        )
        record = DealtWith(id=number, time=now, letter=dead_letter, until=until)
        (offset,) = await self._log.append(
            [Append(topics.dead_letters(region), record.key, codec.encode(record))]
        )
        LOG.info(
            "dead letters dealt with",
            action="dead_letters_dealt_with",
            region=region,
            dead_letter=dead_letter,
        )
        try:
            async with asyncio.timeout(_LONGEST_WAIT):
                await self._tables[region].wait_for(offset)
        except TimeoutError as error:
            raise LogUnavailable("it is written, and shows as soon as the log can be read again") from error

    def _table(self, topic: str, region: Region) -> Table:
        box = self._boxes[region] = DeadLetterQueue()

        def apply(record: Record) -> None:
            if record.value is None:
                return
            if codec.kind_of(record.value) == DealtWith.kind:
                box.deal(codec.decode(record.value, DealtWith))
            else:
                box.take(codec.decode(record.value, DeadLetter))

        table = Table(
            self._log, topic, apply, unreadable=self._ignore, clock=self._clock, random=self._random
        )
        self._tables[region] = table
        return table

    def _close(self, region: Region) -> None:
        self._boxes.pop(region, None)
        self._tables.pop(region, None)

    async def _ignore(self, record: Record, reason: str) -> None:
        """It is buried already; a second grave would help nobody."""
        LOG.warning(
            "dead letter unreadable", action="dead_letter_unreadable", position=record.position, reason=reason
        )
