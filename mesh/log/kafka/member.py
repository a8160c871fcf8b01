"""One consumer in a group: it joins, owns partitions, loses them, and knows when it is stuck.

aiokafka joins and rejoins in the background, so partitions may go at any await; every rebalance takes all of them and
forgets which were paused. A member lives until it fails; then a new one is made.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from mesh.clock import Clock
from mesh.log.kafka.clients import end_consumer, started
from mesh.log.kafka.failures import answering
from mesh.log.kafka.offsets import Offsets, is_behind
from mesh.log.kafka.reading import reading_options, record_of, start_again_from_oldest
from mesh.log.kafka.settings import Cluster, KafkaTimeouts
from mesh.log.port import Partition, Record


class Member(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """`revoked` and `gained` are called in the middle of others' awaits, and never again once `end` was called."""

    def __init__(
        self,
        group: str,
        cluster: Cluster,
        timeouts: KafkaTimeouts,
        clock: Clock,
        offsets: Offsets,
        *,
        revoked: Callable[["Member"], None],
        gained: Callable[["Member"], None],
        truncated: Callable[[Mapping[Partition, int]], None],
    ) -> None:
        self._group, self._cluster, self._timeouts, self._clock = group, cluster, timeouts, clock
        self._offsets, self._revoked, self._gained, self._truncated = offsets, revoked, gained, truncated
        self._consumer = AIOKafkaConsumer(**_options(group, cluster, timeouts))
        self._ended = False
        self._well_at = (
            clock.monotonic()
        )  # when it last gained partitions, got records, or had nothing to get
        self._refused_at: float | None = None  # a commit, with no rebalance since
        self._has_place = False  # in the group's present generation
        self._from_oldest: set[TopicPartition] = (
            set()
        )  # at their oldest record, as the group never committed there
        self.owned: frozenset[Partition] = frozenset()

    async def join(self, topics: Sequence[str]) -> None:
        """Connect, then join in the background. `LogUnavailable` when nobody answers."""
        async with answering(f"join group {self._group}", self._cluster, self._timeouts.request_timeout):
            await started(self._consumer, self._stop)
        self._consumer.subscribe(list(topics), listener=self)

    async def end(self) -> None:
        """Leave, so that others take over at once; in bounded time."""
        self._ended = True
        self.owned = frozenset()
        await self._stop(self._consumer)

    async def look(self, max_records: int, timeout: float) -> list[Record]:
        """Records, if some come within `timeout` seconds. Raises what aiokafka raises.

        Waits longer, without end, during a rebalance; must not be cancelled unless the member is given up. Whoever
        called continues at once, with no await in between, so no rebalance comes between taking records and keeping.
        """
        try:
            found = await self._consumer.getmany(timeout_ms=int(timeout * 1000), max_records=max_records)
        except NoOffsetForPartitionError:
            await self._begin_at_oldest()
            return []
        except OffsetOutOfRangeError as error:
            self._truncated(await start_again_from_oldest(self._consumer, error))
            return []
        if found:
            self._well_at = self._clock.monotonic()
        return [record_of(one) for several in found.values() for one in several]

    def pause(self, partitions: AbstractSet[Partition]) -> None:
        self._consumer.pause(*_theirs(partitions & self.owned))

    def resume(self, partitions: AbstractSet[Partition]) -> None:
        self._consumer.resume(*_theirs(partitions & self.owned))

    async def commit(self, finished: Mapping[Partition, int]) -> None:
        """As `Group.commit`."""
        offsets = {TopicPartition(*one): offset for one, offset in finished.items() if one in self.owned}
        if not offsets:
            return  # without offsets, aiokafka would commit what was read
        async with answering(f"commit of group {self._group}", self._cluster, self._timeouts.request_timeout):
            try:
                await self._consumer.commit(offsets)
            except (CommitFailedError, IllegalStateError):
                # A rebalance came first: whoever owns them now reads them again.
                self._refused_at = self._refused_at or self._clock.monotonic()

    async def lag(self) -> dict[Partition, int]:
        """As `Group.lag`."""
        owned = _theirs(self.owned)
        ends, oldest = await self._offsets.ends(owned), await self._offsets.oldest(owned)
        async with answering(f"lag of group {self._group}", self._cluster, self._timeouts.request_timeout):
            committed = {one: await self._consumer.committed(one) or 0 for one in owned}
        return {Partition(*one): ends[one] - max(committed[one], oldest[one]) for one in owned}

    async def is_stuck(self, paused: AbstractSet[Partition]) -> bool:
        """Whether a new member would do better: no partitions for long, commits refused for long, or no records.

        aiokafka's background tasks can hang with no other sign. `LogUnavailable` when nobody answers.
        """
        now = self._clock.monotonic()
        if self._refused_at is not None and now - self._refused_at > self._timeouts.stall_timeout:
            return True
        if now - self._well_at < self._timeouts.stall_timeout:
            return False
        unread = _theirs(self.owned - paused)
        if not self._has_place or await is_behind(self._consumer, unread, self._offsets):
            return True
        self._well_at = now
        return False

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:  # noqa: ARG002 (all of them)
        """Called by aiokafka."""
        if not self._ended:
            self._has_place = False
            self._revoked(self)
            self.owned = frozenset()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Called by aiokafka, also with nothing, when there are more members than partitions."""
        if not self._ended:
            self._has_place = True
            self._from_oldest.clear()
            self.owned = frozenset(Partition(*one) for one in assigned)
            self._well_at, self._refused_at = self._clock.monotonic(), None
            self._gained(self)

    async def _begin_at_oldest(self) -> None:
        """Where this group never committed. aiokafka tells of one partition at a time, which takes long for many."""
        never = [
            one
            for one in self._consumer.assignment() - self._from_oldest
            if await self._consumer.committed(one) is None
        ]
        self._from_oldest |= set(never)
        still_ours = [one for one in never if one in self._consumer.assignment()]
        if still_ours:
            await self._consumer.seek_to_beginning(*still_ours)

    async def _stop(self, consumer: AIOKafkaConsumer) -> None:
        await end_consumer(consumer, self._timeouts.stop_timeout)


def _theirs(partitions: Collection[Partition]) -> list[TopicPartition]:
    return [TopicPartition(*one) for one in partitions]


def _options(group: str, cluster: Cluster, timeouts: KafkaTimeouts) -> dict[str, Any]:
    return {
        **reading_options(cluster),
        "group_id": group,
        "session_timeout_ms": int(timeouts.session_timeout * 1000),
        "heartbeat_interval_ms": int(timeouts.heartbeat_interval * 1000),
        "rebalance_timeout_ms": int(timeouts.rebalance_timeout * 1000),
        "max_poll_interval_ms": int(timeouts.poll_timeout * 1000),
        # A request to join is answered when the rebalance is over.
        "request_timeout_ms": int((timeouts.rebalance_timeout + 5) * 1000),
        # One only: with several, aiokafka asks to join once for each.
        "partition_assignment_strategy": (RoundRobinPartitionAssignor,),
    }
