"""Follows the dead letters of all regions into memory, and marks them as dealt with."""

import asyncio
from datetime import datetime

import structlog

from mesh.control.ports import ControlPorts
from mesh.control.readers.region_tables import RegionTables
from mesh.control.status.dead_letter_queue import DeadLetterQueue, KeptDeadLetter
from mesh.errors import LogUnavailable
from mesh.log.port import Append, Record
from schemas import codec, topics
from schemas.dead_letters import DeadLetter, DealtWith
from schemas.envelope import make_id
from schemas.names import Region

LOG = structlog.get_logger()

_READ_BACK_TIMEOUT = 10.0  # seconds


class DeadLetters:
    """The open dead letters. The marks that `close` and `close_all` write are records of the same topic."""

    def __init__(self, ports: ControlPorts) -> None:
        self._log, self._clock = ports.log, ports.clock
        self._regions = RegionTables(
            "dead_letter", topic_of=topics.dead_letters, new_state=DeadLetterQueue, apply=_apply, ports=ports
        )

    async def run(self) -> None:
        """Follows the topics until cancelled."""
        await self._regions.run()

    def queues(self) -> dict[Region, DeadLetterQueue]:
        """Returns the queue of each region."""
        return dict(self._regions.states)

    def newest(self) -> list[tuple[Region, KeptDeadLetter]]:
        """Returns the kept dead letters of all regions, newest first."""
        found = [(region, kept) for region, queue in self.queues().items() for kept in queue.newest.values()]
        return sorted(found, key=lambda it: it[1].dead_letter.time, reverse=True)

    async def close(self, dead_letter_id: str) -> bool:
        """Marks one of `newest` and its repeats as dealt with; False when there is no such dead letter.

        Raises:
            LogError: The mark was not written.
        """
        for region, queue in self.queues().items():
            if dead_letter_id in queue.newest:
                await self._write(region, dead_letter_id=dead_letter_id)
                return True
        return False

    async def close_all(self, until: datetime | None) -> int:
        """Marks all dead letters up to that time (None: up to now) as dealt with, and returns their number.

        Raises:
            LogError: A mark was not written.
        """
        found = {region: queue.count_until(until) for region, queue in self.queues().items()}
        for region, count in found.items():
            if count:
                await self._write(region, until=until)
        return sum(found.values())

    async def _write(
        self, region: Region, *, dead_letter_id: str | None = None, until: datetime | None = None
    ) -> None:
        """Waits until the mark is read back, so that the next request sees its effect."""
        now = self._clock.now()
        upto = None if until is None else until.isoformat()
        mark_id = make_id("dealt_with", region, dead_letter_id, upto, now.isoformat())
        mark = DealtWith(id=mark_id, time=now, letter=dead_letter_id, until=until)
        append = Append(topics.dead_letters(region), mark.key, codec.encode(mark))
        (offset,) = await self._log.append([append])
        LOG.info(
            "dead letters dealt with", action="dead_letters_dealt_with", region=region,
            dead_letter=dead_letter_id,
        )  # fmt: skip
        try:
            async with asyncio.timeout(_READ_BACK_TIMEOUT):
                await self._regions.wait_for(region, offset)
        except TimeoutError as error:
            raise LogUnavailable(
                "the dead letters are marked as dealt with, but the log cannot be read back; "
                "they disappear from the list as soon as it can"
            ) from error


def _apply(queue: DeadLetterQueue, record: Record) -> None:
    if record.value is None:
        return
    if codec.kind_of(record.value) == DealtWith.kind:
        queue.close(codec.decode(record.value, DealtWith))
    else:
        queue.add(codec.decode(record.value, DeadLetter))
