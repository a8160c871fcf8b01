"""Reads one region's events into lanes, and commits what is finished.

The loop never waits for tasks: it reads, starts what may start, holds the rest with its partition paused, commits the
finished prefix, and reads again. So a copy of any length costs no group membership, and memory is bounded by the window
of each partition. A task that blocks a full window is parked while it runs, and its record is finished.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog

from consumer.pipeline.lanes import Entry, Lanes
from consumer.pipeline.match import match, match_prefetch
from consumer.pipeline.newer_rules import NewerRules
from consumer.pipeline.offsets import Offsets
from consumer.ports import AgentPorts
from consumer.progress import TaskRun
from consumer.settings import ReadWindow
from consumer.task import Task
from mesh.concurrency import finishes
from mesh.errors import LogError
from mesh.log.dead_letters import truncation_record
from mesh.log.port import Group, Partition, Record
from mesh.retry import Backoff, RetryLoop
from schemas import codec
from schemas.events import Event
from schemas.names import Region

LOG = structlog.get_logger()

_LOG_BACKOFF = Backoff(first=0.2, longest=2.0)  # short, as a stopping agent waits for it too


class Consume:
    """Reads the events, or the listed events, of one source region for an agent."""

    def __init__(
        self,
        ports: AgentPorts,
        *,
        source_region: Region,
        group: Group,
        lanes: Lanes,
        prefetch: Callable[[Task], None],
        park_running: Callable[[TaskRun], Awaitable[bool]],
        send_to_dlq: Callable[[Record, str], Awaitable[None]],
        window: ReadWindow,
    ) -> None:
        self._ports, self._source_region, self._group = ports, source_region, group
        self._lanes, self._prefetch = lanes, prefetch
        self._park_running, self._send_to_dlq = park_running, send_to_dlq
        self._clock, self._window = ports.clock, window
        self._offsets = Offsets()
        self._held: dict[Partition, deque[Record]] = {}  # that were read and may not start yet
        self._newer_rules = NewerRules(ports, source_region, window.alarm_after)
        self._entries: dict[tuple[Partition, int], list[Entry]] = {}  # of records that are not finished
        self._revocations: Counter[Partition] = (
            Counter()
        )  # what was read before one finishes nothing any more
        self._gaps: dict[Partition, int] = {}  # truncated before they were read, and not reported yet
        self._parked: list[Entry] = []  # while they run
        self._since_commit = 0
        self._last_commit = self._clock.monotonic()

    async def run(self, stopping: asyncio.Event) -> None:
        """Reads until `stopping`, then returns while the lanes still run; `settle` commits what they finish."""
        retry = RetryLoop(
            "consume", self._clock, self._ports.random, _LOG_BACKOFF, source_region=self._source_region
        )
        while not stopping.is_set():
            try:
                await self._read_once(stopping)
                retry.reset()
            except LogError as error:  # this region's log only; the agent has others
                await retry.wait(error)

    async def settle(self) -> None:
        """Commits what is finished, after the lanes were drained."""
        await self._commit()

    async def report_lag(self) -> None:
        """Sets the lag metric: records after the last commit."""
        waiting: Counter[str] = Counter()
        for partition, records in (await self._group.lag()).items():
            waiting[partition.topic] += records
        for topic, records in waiting.items():
            self._ports.metrics.group_lag.labels(self._ports.region, topic).set(records)

    async def close(self) -> None:
        """Leaves the group, so that other members take over at once."""
        await self._group.close()

    async def _read_once(self, stopping: asyncio.Event) -> None:
        await self._report_gaps()
        records = await self._read(stopping)
        for partition in self._group.revoked():
            self._forget(partition)
        for record in records:
            self._held.setdefault(record.partition, deque()).append(record)
        for partition, held in list(self._held.items()):
            await self._start_held(partition, held)
        for partition, offset in list(self._offsets.blocking_heads(self._window.records_per_partition)):
            await self._unblock(partition, offset)
        if self._since_commit >= self._window.commit_after or self._commit_is_due():
            await self._commit()

    async def _read(self, stopping: asyncio.Event) -> Sequence[Record]:
        """Reads what there is, or waits for it: long while there is nothing else to do, but not when it is stopped."""
        read = partial(self._group.read, max_records=self._window.records_per_partition)
        if self._held or not self._offsets.is_idle or self._gaps:
            return await read(timeout=self._window.poll_while_holding if self._held else self._window.poll)
        found = list[Record]()

        async def wait() -> None:
            found.extend(await read(timeout=self._window.poll_while_idle))

        await finishes(wait(), stopping)
        return found

    def _forget(self, partition: Partition) -> None:
        self._offsets.forget(partition)
        self._revocations[partition] += 1
        self._held.pop(partition, None)
        self._newer_rules.forget(partition)
        self._entries = {at: entries for at, entries in self._entries.items() if at[0] != partition}
        self._group.resume([partition])  # a pause would outlive the revocation

    async def _report_gaps(self) -> None:
        """Before anything is read that an error would lose; a gap that cannot be reported now is kept."""
        self._gaps |= self._group.truncated()
        for partition, offset in list(self._gaps.items()):
            await self._send_to_dlq(*truncation_record(partition, offset, self._clock))
            del self._gaps[partition]

    async def _start_held(self, partition: Partition, held: deque[Record]) -> None:
        while held and self._has_room(partition):
            record = held[0]
            event = await self._decode(record)
            if event is not None and not await self._newer_rules.are_here(event, partition):
                break
            held.popleft()
            self._offsets.start(partition, record.offset)
            finish = partial(self._finish, partition, record.offset, self._revocations[partition])
            if entries := self._start(event, finish):
                self._entries[partition, record.offset] = entries
        if held:
            self._group.pause([partition])
        else:
            del self._held[partition]
            self._group.resume([partition])

    def _has_room(self, partition: Partition) -> bool:
        return self._offsets.in_flight(partition) < self._window.records_per_partition

    async def _decode(self, record: Record) -> Event | None:
        """The event; None for an unreadable record, which is a dead letter by then."""
        try:
            event = codec.decode(record.value or b"", Event)
        except codec.DecodeError as error:
            await self._send_to_dlq(record, error.reason)
            return None
        if event.region != self._source_region:
            reason = f"an event of region {event.region} on the topic of {self._source_region}"
            await self._send_to_dlq(record, reason)
            return None
        return event

    def _start(self, event: Event | None, finish: Callable[[], None]) -> list[Entry]:
        """Puts the event's tasks into their lanes; the record is finished when the last of them is."""
        self._ports.metrics.consumed.labels(self._source_region).inc()
        state, region = self._ports.state, self._ports.region
        tasks = match(event, state, region) if event is not None else []
        for blob in match_prefetch(event, state, region) if event is not None else ():
            self._prefetch(blob)
        left = len(tasks)
        if not left:
            finish()

        def one_done() -> None:
            nonlocal left
            left -= 1
            if not left:
                finish()

        return [self._lanes.put(task, one_done) for task in tasks]

    async def _unblock(self, partition: Partition, offset: int) -> None:
        """Finishes a record once its running tasks are parked; at most a window's worth of tasks may be so."""
        self._parked = [entry for entry in self._parked if not entry.is_over]
        entries = [entry for entry in self._entries.get((partition, offset), ()) if not entry.is_over]
        if not entries or len(self._parked) + len(entries) > self._window.records_per_partition:
            return
        if all([await self._park_running(entry.run) for entry in entries]):
            self._parked += entries
            self._finish(partition, offset, self._revocations[partition])

    def _finish(self, partition: Partition, offset: int, revocations: int) -> None:
        """Ignores a record that was read before a revocation: the same record may have been read again since."""
        if revocations != self._revocations[partition]:
            return
        self._offsets.finish(partition, offset)
        self._entries.pop((partition, offset), None)
        self._since_commit += 1

    def _commit_is_due(self) -> bool:
        return self._clock.monotonic() - self._last_commit >= self._window.commit_every

    async def _commit(self) -> None:
        self._since_commit = 0
        self._last_commit = self._clock.monotonic()
        if finished := self._offsets.committable():
            await self._group.commit(finished)
            self._offsets.committed(finished)
