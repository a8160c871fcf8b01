"""Completions off the log, into the sync log and the outbox: the one reader that makes them a record.

Every turn is whole: read, write, commit. Whatever fails, the group is left and joined again, and the turn comes again
from the last commit; writing twice changes nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog

from mesh.clock import Clock
from mesh.control.patience import Patience
from mesh.control.sync_log import ENDS, SyncLog
from mesh.errors import DatabaseUnavailable, LogError
from mesh.log.dead_letters import bury
from mesh.log.port import Group, Log, Partition, Record
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from schemas import codec, topics
from schemas.completions import Completion
from schemas.names import Region

LOG = structlog.get_logger()

GROUP = "control.report"
_MOST_RECORDS = 500
_POLL = 0.5  # seconds
_LOOK_FOR_TOPICS = 5.0  # seconds; for regions whose topics are not made yet
_LARGEST = 2**63 - 1  # what a column can hold


class Report:
    def __init__(
        self,
        sync_log: SyncLog,
        *,
        log: Log,
        state: MeshState,
        clock: Clock,
        metrics: Metrics,
        random: Callable[[], float],
        written: Callable[[], None],
    ) -> None:
        """`written` is called after each write that brought something new."""
        self._sync_log, self._log, self._state = sync_log, log, state
        self._clock, self._metrics, self._random = clock, metrics, random
        self._written = written

    async def run(self) -> None:
        """For ever, over the regions that are declared at each time."""
        patience = Patience("report", self._clock, self._random)
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
        group = await self._log.group(GROUP, sorted(regions.keys() - missing))
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

    def _regions(self) -> Mapping[str, Region]:
        return {topics.completions(region.name): region.name for region in self._state.regions()}

    async def _turn(self, group: Group, regions: Mapping[str, Region]) -> None:
        records = await group.read(max_records=_MOST_RECORDS, timeout=_POLL)
        group.lost()  # nothing stays with us from one turn to the next
        if records:
            await self._take(records, regions)
            await group.commit(_finished(records))

    async def _take(self, records: Sequence[Record], regions: Mapping[str, Region]) -> None:
        completions = []
        for record in records:
            region = regions[record.partition.topic]
            try:
                completions.append(read(record.value or b"", region))
            except codec.DecodeError as error:
                await self._bury(record, region, error.reason)
        news = await self._sync_log.write(completions, self._state.webhooks(), self._clock.now())
        for status, count in Counter(one.status.value for one in news).items():
            self._metrics.completions.labels(status).inc(count)
        if news:
            self._written()

    async def _bury(self, record: Record, region: Region, reason: str) -> None:
        await bury(
            self._log, region, raw=record.value or b"", reason=reason, position=record.position,
            key=record.key, clock=self._clock,
        )  # fmt: skip
        self._metrics.dead_letters.labels(record.partition.topic).inc()
        LOG.warning(
            "completion unreadable", action="completion_unreadable", position=record.position, reason=reason
        )


def read(raw: bytes, region: Region) -> Completion:
    """The completion in a record of this region's topic; `DecodeError` for what no sync log can hold."""
    completion = codec.decode(raw, Completion)
    if completion.status not in ENDS:
        raise codec.DecodeError(f"status {completion.status} ends no task", raw)
    if completion.destination_region != region:
        raise codec.DecodeError(
            f"a completion of region {completion.destination_region} on the topic of {region}", raw
        )
    for field, value in completion:
        if isinstance(value, int) and value > _LARGEST:
            raise codec.DecodeError(f"{field} is larger than anything can be", raw)
        if isinstance(value, str) and "\0" in value:
            raise codec.DecodeError(f"{field} holds a NUL character", raw)
    if completion.error is not None and "\0" in completion.error.code + completion.error.message:
        raise codec.DecodeError("error holds a NUL character", raw)
    return completion


def _finished(records: Sequence[Record]) -> Mapping[Partition, int]:
    finished: dict[Partition, int] = {}
    for record in records:
        finished[record.partition] = max(record.offset + 1, finished.get(record.partition, 0))
    return finished
