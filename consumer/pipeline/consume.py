"""One region's events into lanes, and what is finished back to the log as a commit.

The loop never waits for work: it reads, admits what may begin, holds the rest with its partition paused, commits the
finished prefix, and reads again. So a copy of any length costs no group membership, and memory is bounded by the
window of each partition. A task that keeps a full window from moving on is parked as it runs, and its record finished.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import structlog

from consumer.pipeline.lanes import Entry, Lanes
from consumer.pipeline.match import match, match_prefetch
from consumer.pipeline.offsets import Offsets
from consumer.progress import TaskRun
from consumer.task import Task
from mesh.clock import Clock
from mesh.errors import LogError
from mesh.log.dead_letters import gap
from mesh.log.port import Group, Partition, Record
from mesh.log.table import Table
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from schemas import codec
from schemas.events import Event
from schemas.names import Region

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Window:
    """How much of the log an agent takes up at once, and how often it says what is finished. Seconds."""

    records_per_partition: int = 256
    commit_every: float = 1.0
    commit_after: int = 100  # finished records
    poll: float = 0.5
    poll_while_holding: float = 0.02
    alarm_after: float = 30.0  # of waiting for newer rules


@dataclass(slots=True)
class _Held:
    """Records of one partition that were read and may not begin yet."""

    records: deque[Record]
    waiting_since: float | None = None  # for newer rules
    alarmed: bool = False


class Consume:
    """Reads `mesh.<source region>.events` for the agent of `region`."""

    def __init__(
        self,
        *,
        region: Region,
        source_region: Region,
        group: Group,
        send_to_dlq: Callable[[Record, str], Awaitable[None]],
        state: MeshState,
        table: Table,
        lanes: Lanes,
        ahead: Callable[[Task], None],
        park_running: Callable[[TaskRun], Awaitable[bool]],
        clock: Clock,
        metrics: Metrics,
        window: Window,
    ) -> None:
        """`ahead` takes the blobs that may come before their manifests."""
        self._region, self._source_region = region, source_region
        self._group, self._send_to_dlq, self._lanes = group, send_to_dlq, lanes
        self._ahead, self._park = ahead, park_running
        self._state, self._table = state, table
        self._clock, self._metrics, self._window = clock, metrics, window
        self._offsets = Offsets()
        self._held: dict[Partition, _Held] = {}
        self._tasks: dict[tuple[Partition, int], list[Entry]] = {}  # of records that are not finished
        self._losses: Counter[Partition] = Counter()  # what was read before one finishes nothing any more
        self._gaps: dict[Partition, int] = {}  # what the log lost before it was read, not told yet
        self._aside: list[Entry] = []
        self._since_commit = 0
        self._last_commit = clock.monotonic()

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping`; then returns at once, the lanes still running: `settle` commits what they finish."""
        while not stopping.is_set():
            try:
                await self._turn()
            except LogError as error:  # refused or away: of one region, and the agent has others
                log.warning(
                    "the log is away; reading goes on when it is back", action="log_away", error=str(error)
                )
                await self._clock.sleep(1.0)

    async def settle(self) -> None:
        """Commit what is finished. Called after the lanes were drained."""
        await self._commit()

    async def report_lag(self) -> None:
        """Tell the metrics how many records wait, by what is committed."""
        waiting: Counter[str] = Counter()
        for partition, records in (await self._group.lag()).items():
            waiting[partition.topic] += records
        for topic, records in waiting.items():
            self._metrics.group_lag.labels(self._region, topic).set(records)

    async def close(self) -> None:
        """Leave the group, so that others take over at once."""
        await self._group.close()

    async def _turn(self) -> None:
        await self._tell_gaps()
        timeout = self._window.poll_while_holding if self._held else self._window.poll
        records = await self._group.read(max_records=self._window.records_per_partition, timeout=timeout)
        for partition in self._group.revoked():
            self._offsets.forget(partition)
            self._losses[partition] += 1
            self._held.pop(partition, None)
            self._tasks = {at: entries for at, entries in self._tasks.items() if at[0] != partition}
            self._group.resume([partition])  # a pause outlives the loss, and what it was for is gone
        for record in records:
            self._held.setdefault(record.partition, _Held(deque())).records.append(record)
        for partition, held in list(self._held.items()):
            await self._admit(partition, held)
        for partition, offset in list(self._offsets.heads_in_the_way(self._window.records_per_partition)):
            await self._park_running(partition, offset)
        if self._since_commit >= self._window.commit_after or self._commit_is_due():
            await self._commit()

    async def _tell_gaps(self) -> None:
        """Before anything is read that an error would lose; what cannot be told now is kept."""
        self._gaps |= self._group.truncated()
        for partition, offset in list(self._gaps.items()):
            await self._send_to_dlq(*gap(partition, offset, self._clock))
            del self._gaps[partition]

    async def _admit(self, partition: Partition, held: _Held) -> None:
        while held.records and self._has_room(partition):
            record = held.records[0]
            event = await self._decoded(record)
            if event is not None and not self._rules_are_as_new_as(event, held):
                break
            held.records.popleft()
            self._offsets.begin(partition, record.offset)
            finish = partial(self._finish, partition, record.offset, self._losses[partition])
            if entries := self._start(event, finish):
                self._tasks[partition, record.offset] = entries
        if held.records:
            self._group.pause([partition])
        else:
            del self._held[partition]
            self._group.resume([partition])

    def _has_room(self, partition: Partition) -> bool:
        return self._offsets.in_flight(partition) < self._window.records_per_partition

    async def _decoded(self, record: Record) -> Event | None:
        """The event; None for what cannot be read, which is a dead letter by then."""
        raw = record.value or b""
        try:
            event = codec.decode(raw, Event)
        except codec.DecodeError as error:
            await self._send_to_dlq(record, error.reason)
            return None
        if event.region != self._source_region:
            await self._send_to_dlq(
                record, f"an event of region {event.region} on the topic of {self._source_region}"
            )
            return None
        return event

    def _rules_are_as_new_as(self, event: Event, held: _Held) -> bool:
        """The fence: an event is judged by rules at least as new as those its intake knew."""
        waits = self._metrics.waiting_for_rules.labels(self._source_region)
        if self._table.rev >= event.rules_rev:
            held.waiting_since, held.alarmed = None, False
            waits.set(0)
            return True
        now = self._clock.monotonic()
        held.waiting_since = now if held.waiting_since is None else held.waiting_since
        if now - held.waiting_since > self._window.alarm_after and not held.alarmed:
            held.alarmed = True
            log.error(
                "events wait for rules that this agent does not get", action="waiting_for_rules",
                needs=event.rules_rev, has=self._table.rev, source_region=self._source_region,
            )  # fmt: skip
        waits.set(1)
        return False

    def _start(self, event: Event | None, finish: Callable[[], None]) -> list[Entry]:
        """Hand the event's tasks to their lanes; the record is finished when the last of them is."""
        self._metrics.consumed.labels(self._source_region).inc()
        tasks = match(event, self._state, self._region) if event is not None else []
        for blob in match_prefetch(event, self._state, self._region) if event is not None else ():
            self._ahead(blob)
        left = len(tasks)
        if not left:
            finish()

        def one_done() -> None:
            nonlocal left
            left -= 1
            if not left:
                finish()

        return [self._lanes.put(task, one_done) for task in tasks]

    async def _park_running(self, partition: Partition, offset: int) -> None:
        """Finish a record whose tasks go on, as soon as they are parked. As many may do so as fit into a window."""
        self._aside = [entry for entry in self._aside if not entry.is_over]
        entries = [entry for entry in self._tasks.get((partition, offset), ()) if not entry.is_over]
        if not entries or len(self._aside) + len(entries) > self._window.records_per_partition:
            return
        if all([await self._park(entry.run) for entry in entries]):
            self._aside += entries
            self._finish(partition, offset, self._losses[partition])

    def _finish(self, partition: Partition, offset: int, read_after: int) -> None:
        """`read_after` so many losses of the partition: its end tells nothing of the same record read again."""
        if read_after != self._losses[partition]:
            return
        self._offsets.finish(partition, offset)
        self._tasks.pop((partition, offset), None)
        self._since_commit += 1

    def _commit_is_due(self) -> bool:
        return self._clock.monotonic() - self._last_commit >= self._window.commit_every

    async def _commit(self) -> None:
        self._since_commit = 0
        self._last_commit = self._clock.monotonic()
        if finished := self._offsets.committable():
            await self._group.commit(finished)
            self._offsets.committed(finished)
