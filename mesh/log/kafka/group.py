"""A share of some topics on Kafka, read together with other processes.

`read` takes records from a buffer that a background task fills: aiokafka's `getmany` may not be cancelled (it would
stop counting as a poll), and may not end in time (it waits for a rebalance without a limit). A rebalance that revokes
the partitions also empties the buffer, so `read` returns records only of partitions that are owned at that moment.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import structlog
from aiokafka.errors import ConsumerStoppedError, KafkaError

from mesh.concurrency import close_all
from mesh.errors import LogUnavailable
from mesh.log.kafka.cluster import KafkaContext
from mesh.log.kafka.failures import translated
from mesh.log.kafka.member import Member, RebalanceListener
from mesh.log.kafka.offsets import Offsets
from mesh.log.port import Partition, Record

LOG = structlog.get_logger()

_FAILURES_BEFORE_REJOINING = 3


class KafkaGroup:
    """`mesh.log.port.Group` on Kafka: a member of the group, through one aiokafka consumer after another."""

    def __init__(self, name: str, topics: Sequence[str], context: KafkaContext, offsets: Offsets) -> None:
        self._name, self._topics = name, topics
        self._context, self._timeouts, self._clock = context, context.timeouts, context.clock
        self._offsets = offsets
        self._member: Member | None = None
        self._assigned = asyncio.Event()
        self._revoked: set[Partition] = set()
        self._truncated: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._buffer: list[Record] = []
        self._polling: asyncio.Task[None] | None = None
        self._polling_since = 0.0
        self._failures = 0
        self._closed = False

    async def join(self) -> None:
        """Becomes a member, and waits a while for partitions; they may be assigned later.

        Raises:
            LogUnavailable: No broker answers.
        """
        listener = RebalanceListener(self._on_revoked, self._on_assigned, self._on_truncated)
        self._member = Member(self._name, self._context, self._offsets, listener)
        try:
            await self._member.join(self._topics)
        except BaseException:
            await self._leave()
            raise
        self._failures = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeouts.request):
                await self._assigned.wait()

    async def read(self, *, max_records: int, timeout: float) -> Sequence[Record]:
        deadline = asyncio.get_running_loop().time() + timeout
        while not (records := self._take(max_records)):
            await self._fill(max_records, timeout)
            timeout = deadline - asyncio.get_running_loop().time()
            if timeout <= 0:
                return self._take(max_records)
        return records

    def revoked(self) -> frozenset[Partition]:
        revoked, self._revoked = frozenset(self._revoked), set()
        return revoked

    def truncated(self) -> Mapping[Partition, int]:
        truncated, self._truncated = self._truncated, {}
        return truncated

    def pause(self, partitions: Iterable[Partition]) -> None:
        self._paused |= set(partitions)
        if self._member is not None:
            self._member.pause(self._paused)

    def resume(self, partitions: Iterable[Partition]) -> None:
        resumed = set(partitions)
        self._paused -= resumed
        if self._member is not None:
            self._member.resume(resumed)

    async def commit(self, finished: Mapping[Partition, int]) -> None:
        self._check_open()
        if self._member is not None:
            await self._member.commit(finished)

    async def lag(self) -> Mapping[Partition, int]:
        self._check_open()
        return {} if self._member is None else await self._member.lag()

    async def close(self) -> None:
        self._closed = True
        await close_all(self._stop_polling, self._leave)

    def _take(self, max_records: int) -> list[Record]:
        taken: list[Record] = []
        kept: list[Record] = []
        for record in self._buffer:
            deliver = len(taken) < max_records and record.partition not in self._paused
            (taken if deliver else kept).append(record)
        self._buffer = kept
        return taken

    async def _fill(self, max_records: int, timeout: float) -> None:
        """Waits up to `timeout` for the poll in progress, or starts one. Raises the error that it ended with."""
        self._check_open()
        if self._polling is not None and self._clock.monotonic() - self._polling_since > self._timeouts.stall:
            LOG.warning("a poll hangs", action="log_group_hangs", group=self._name)
            await self._stop_polling()
            await self._leave()
        if self._polling is None:
            self._polling_since = self._clock.monotonic()
            self._polling = asyncio.create_task(self._poll(max_records, timeout), name=f"read {self._name}")
        polling = self._polling
        done, _ = await asyncio.wait([polling], timeout=timeout)
        self._check_open()
        if done:
            self._polling = None
            polling.result()

    async def _poll(self, max_records: int, timeout: float) -> None:
        if self._member is None:
            await self.join()
        elif await self._member.is_stuck(self._paused):
            await self._rejoin("stuck")
        else:
            await self._poll_member(self._member, max_records, timeout)

    async def _poll_member(self, member: Member, max_records: int, timeout: float) -> None:
        try:
            self._buffer += await member.poll(max_records, timeout)
        except (KafkaError, ConsumerStoppedError) as error:
            self._failures += 1
            if self._failures >= _FAILURES_BEFORE_REJOINING:
                await self._rejoin(repr(error))
            raise translated(error, f"read of group {self._name}", self._context.cluster) from error
        self._failures = 0

    async def _rejoin(self, reason: str) -> None:
        """Leaves the group; the next poll joins it again."""
        LOG.warning(
            "a member joins its group again", action="log_group_rejoin", group=self._name, reason=reason
        )
        await self._leave()

    async def _stop_polling(self) -> None:
        polling, self._polling = self._polling, None
        if polling is not None:
            polling.cancel()
            await asyncio.wait([polling])
            if not polling.cancelled():
                polling.exception()  # retrieved, since nobody waits for it any more

    async def _leave(self) -> None:
        member, self._member = self._member, None
        if member is not None:
            self._on_revoked(member)
            await member.end()

    def _on_revoked(self, member: Member) -> None:
        self._revoked |= member.owned
        self._buffer.clear()
        self._assigned.clear()

    def _on_truncated(self, truncated: Mapping[Partition, int]) -> None:
        self._truncated |= truncated

    def _on_assigned(self, member: Member) -> None:
        member.pause(self._paused)
        self._assigned.set()

    def _check_open(self) -> None:
        if self._closed:
            raise LogUnavailable(f"group {self._name} was closed")
