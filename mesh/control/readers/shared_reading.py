"""One topic of each declared region, read as a group, so that several controls share the work.

Every turn is whole: read, take, commit. Whatever fails, the group is left and joined again, and the turn comes again
from the last commit; so taking twice must change nothing.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

import structlog

from mesh.clock import Clock
from mesh.control.patience import Patience
from mesh.errors import DatabaseUnavailable, LogError
from mesh.log.dead_letters import send_record_to_dlq, truncation_record
from mesh.log.port import Group, Log, Partition, Record
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from schemas import codec
from schemas.names import Region

LOG = structlog.get_logger()

_MOST_RECORDS = 500
_POLL = 0.5  # seconds
_GATHERED = 0.05  # seconds for which more is gathered after what was taken: each turn costs some transactions
_LOOK_FOR_TOPICS = 5.0  # seconds; for regions whose topics are not made yet

Regions = Mapping[str, Region]  # by topic

T = TypeVar("T")


class SharedReading(Generic[T]):
    def __init__(
        self,
        step: str,
        *,
        what: str,
        topic_of: Callable[[Region], str],
        decode: Callable[[Record, Region], T],
        take: Callable[[Sequence[T]], Awaitable[None]],
        log: Log,
        state: MeshState,
        clock: Clock,
        metrics: Metrics,
        random: Callable[[], float],
    ) -> None:
        """Each record is `what`, as `decode` has it of its region's topic; one it raises `DecodeError` for is buried.

        `take` may raise `LogError` and `DatabaseUnavailable`: then its records come again.
        """
        self._step, self._what, self._topic_of, self._decode, self._take = step, what, topic_of, decode, take
        self._log, self._state, self._clock = log, state, clock
        self._metrics, self._random = metrics, random

    async def run(self) -> None:
        """For ever, over the regions that are declared at each time."""
        patience = Patience(self._step, self._clock, self._random)
        while True:
            try:
                await self._read_as_declared(patience)
            except (LogError, DatabaseUnavailable) as error:
                await patience.wait(error)

    async def _read_as_declared(self, patience: Patience) -> None:
        """Join the group over the topics that exist, and read until there are others."""
        regions = self._regions()
        missing = await self._missing(regions)
        if not regions.keys() - missing:
            await self._clock.sleep(_POLL)
            return
        group = await self._log.group(f"control.{self._step}", sorted(regions.keys() - missing))
        try:
            looked = self._clock.monotonic()
            while self._regions() == regions:
                await self._turn(group, regions)
                patience.relax()
                if missing and self._clock.monotonic() - looked > _LOOK_FOR_TOPICS:
                    looked = self._clock.monotonic()
                    if await self._missing(missing) != missing:
                        return
        finally:
            await group.close()

    async def _missing(self, wanted: Iterable[str]) -> frozenset[str]:
        return frozenset(await self._log.missing(sorted(wanted)))

    def _regions(self) -> Regions:
        return {self._topic_of(region.name): region.name for region in self._state.regions()}

    async def _turn(self, group: Group, regions: Regions) -> None:
        for partition, offset in group.truncated().items():
            await send_record_to_dlq(
                self._log,
                regions[partition.topic],
                *truncation_record(partition, offset, self._clock),
                self._clock,
            )
        records = await group.read(max_records=_MOST_RECORDS, timeout=_POLL)
        group.revoked()  # nothing stays with us from one turn to the next
        if records:
            await self._take(await self._decoded(records, regions))
            await group.commit(finished(records))
        if 0 < len(records) < _MOST_RECORDS:
            await self._clock.sleep(_GATHERED)

    async def _decoded(self, records: Sequence[Record], regions: Regions) -> Sequence[T]:
        found = []
        for record in records:
            region = regions[record.partition.topic]
            try:
                found.append(self._decode(record, region))
            except codec.DecodeError as error:
                await send_record_to_dlq(self._log, region, record, error.reason, self._clock)
                self._metrics.dead_letters.labels(record.partition.topic).inc()
                LOG.warning(
                    "a record is unreadable", action=f"{self._what}_unreadable", position=record.position,
                    reason=error.reason,
                )  # fmt: skip
        return found


def finished(records: Sequence[Record]) -> Mapping[Partition, int]:
    """What to commit when all of these are."""
    ends: dict[Partition, int] = {}
    for record in records:
        ends[record.partition] = max(record.offset + 1, ends.get(record.partition, 0))
    return ends
