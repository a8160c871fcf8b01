"""A share of some topics on Kafka, read with others.

`read` looks into a buffer that a task of its own fills: aiokafka's `getmany` may neither be cancelled (it stops
counting as polling) nor trusted to end in time (it waits for a rebalance without end). When a rebalance takes the
partitions, the buffer is emptied with them, so what `read` returns is always of partitions owned at that moment.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import structlog
from aiokafka.errors import ConsumerStoppedError, KafkaError

from mesh.clock import Clock
from mesh.concurrency import close_all
from mesh.errors import LogUnavailable
from mesh.log.kafka.failures import translated
from mesh.log.kafka.member import Member
from mesh.log.kafka.offsets import Offsets
from mesh.log.kafka.settings import Cluster, KafkaTimeouts
from mesh.log.port import Partition, Record

log = structlog.get_logger()

_FAILURES_BEFORE_REJOINING = 3


class KafkaGroup:
    """One member of the group `name` over `topics`, whatever consumers it takes; see `Group`."""

    def __init__(
        self,
        name: str,
        topics: Sequence[str],
        cluster: Cluster,
        timeouts: KafkaTimeouts,
        clock: Clock,
        offsets: Offsets,
    ) -> None:
        self._name, self._topics = name, topics
        self._cluster, self._timeouts, self._clock = cluster, timeouts, clock
        self._offsets = offsets
        self._member: Member | None = None
        self._gained = asyncio.Event()
        self._revoked: set[Partition] = set()
        self._truncated: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._buffer: list[Record] = []
        self._turn: asyncio.Task[None] | None = None
        self._turn_began = 0.0
        self._failures = 0
        self._closed = False

    async def join(self) -> None:
        """Become a member, and wait a while for partitions; they may come later. `LogUnavailable`."""
        member = Member(
            self._name,
            self._cluster,
            self._timeouts,
            self._clock,
            self._offsets,
            revoked=self._on_revoked,
            gained=self._on_gained,
            truncated=self._on_truncated,
        )
        self._member = member
        try:
            await member.join(self._topics)
        except BaseException:
            await self._leave()
            raise
        self._failures = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeouts.request_timeout):
                await self._gained.wait()

    async def read(self, *, max_records: int, timeout: float) -> Sequence[Record]:
        """As `Group.read`. `LogUnavailable` while Kafka is away, and `LogError` when it refuses this member."""
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
        await close_all(self._stop_turn, self._leave)

    def _take(self, max_records: int) -> list[Record]:
        taken: list[Record] = []
        kept: list[Record] = []
        for record in self._buffer:
            deliver = len(taken) < max_records and record.partition not in self._paused
            (taken if deliver else kept).append(record)
        self._buffer = kept
        return taken

    async def _fill(self, max_records: int, timeout: float) -> None:
        """Wait up to `timeout` for the turn that is under way, or begin one. Raises what it ended with."""
        self._check_open()
        if (
            self._turn is not None
            and self._clock.monotonic() - self._turn_began > self._timeouts.stall_timeout
        ):
            log.warning("reader hangs", action="log_group_hangs", group=self._name)
            await self._stop_turn()
            await self._leave()
        if self._turn is None:
            self._turn_began = self._clock.monotonic()
            self._turn = asyncio.create_task(self._one_turn(max_records, timeout), name=f"read {self._name}")
        turn = self._turn
        done, _ = await asyncio.wait([turn], timeout=timeout)
        self._check_open()
        if done:
            self._turn = None
            turn.result()

    async def _one_turn(self, max_records: int, timeout: float) -> None:
        if self._member is None:
            await self.join()
        elif await self._member.is_stuck(self._paused):
            log.warning("reader joins anew", action="log_group_rejoin", group=self._name, reason="stuck")
            await self._leave()
        else:
            await self._look(self._member, max_records, timeout)

    async def _look(self, member: Member, max_records: int, timeout: float) -> None:
        try:
            self._buffer += await member.look(max_records, timeout)
        except (KafkaError, ConsumerStoppedError) as error:
            self._failures += 1
            if self._failures >= _FAILURES_BEFORE_REJOINING:
                log.warning(
                    "reader joins anew", action="log_group_rejoin", group=self._name, reason=repr(error)
                )
                await self._leave()
            raise translated(error, f"read of group {self._name}", self._cluster) from error
        self._failures = 0

    async def _stop_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.cancel()
            await asyncio.wait([turn])
            if not turn.cancelled():
                turn.exception()  # seen; nobody waits for it any more

    async def _leave(self) -> None:
        member, self._member = self._member, None
        if member is not None:
            self._on_revoked(member)
            await member.end()

    def _on_revoked(self, member: Member) -> None:
        self._revoked |= member.owned
        self._buffer.clear()
        self._gained.clear()

    def _on_truncated(self, truncated: Mapping[Partition, int]) -> None:
        self._truncated |= truncated

    def _on_gained(self, member: Member) -> None:
        member.pause(self._paused)
        self._gained.set()

    def _check_open(self) -> None:
        if self._closed:
            raise LogUnavailable(f"group {self._name} was closed")
