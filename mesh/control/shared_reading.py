"""One topic of each declared region, read as a group, so that several controls share the work.

Every turn is whole: read, take, commit. Whatever fails, the group is left and joined again, and the turn comes again
from the last commit; so taking twice must change nothing.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from mesh.clock import Clock
from mesh.control.patience import Patience
from mesh.errors import DatabaseUnavailable, LogError
from mesh.log.dead_letters import bury_record, gap
from mesh.log.port import Group, Log, Partition, Record
from mesh.rules.state import MeshState
from schemas.names import Region

_MOST_RECORDS = 500
_POLL = 0.5  # seconds
_GATHERED = 0.05  # seconds for which more is gathered after what was taken: each turn costs some transactions
_LOOK_FOR_TOPICS = 5.0  # seconds; for regions whose topics are not made yet

Regions = Mapping[str, Region]  # by topic


class SharedReading:
    def __init__(
        self,
        step: str,
        *,
        topic_of: Callable[[Region], str],
        take: Callable[[Sequence[Record], Regions], Awaitable[None]],
        log: Log,
        state: MeshState,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        """`take` may raise `LogError` and `DatabaseUnavailable`: then its records come again."""
        self._step, self._topic_of, self._take_records = step, topic_of, take
        self._log, self._state, self._clock, self._random = log, state, clock, random

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
        for partition, offset in group.gone().items():
            await bury_record(
                self._log, regions[partition.topic], *gap(partition, offset, self._clock), self._clock
            )
        records = await group.read(max_records=_MOST_RECORDS, timeout=_POLL)
        group.lost()  # nothing stays with us from one turn to the next
        if records:
            await self._take_records(records, regions)
            await group.commit(_finished(records))
        if 0 < len(records) < _MOST_RECORDS:
            await self._clock.sleep(_GATHERED)


def _finished(records: Sequence[Record]) -> Mapping[Partition, int]:
    finished: dict[Partition, int] = {}
    for record in records:
        finished[record.partition] = max(record.offset + 1, finished.get(record.partition, 0))
    return finished
