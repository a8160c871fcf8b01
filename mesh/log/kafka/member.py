"""One consumer in a group: it joins, owns partitions until they are revoked, and detects when it is stuck.

aiokafka joins and rejoins in the background, so partitions may be revoked at any await; every rebalance revokes all of
them and forgets which were paused. A member that fails is replaced by a new one.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from mesh.log.kafka.clients import end_consumer, started
from mesh.log.kafka.cluster import KafkaContext
from mesh.log.kafka.failures import answering
from mesh.log.kafka.offsets import Offsets, is_behind
from mesh.log.kafka.reading import consumer_options, record_of, skip_truncated
from mesh.log.port import Partition, Record


class RebalanceListener(NamedTuple):
    """What a member calls, in the middle of awaits of other tasks, and never again after `Member.end`."""

    on_revoked: Callable[["Member"], None]
    on_assigned: Callable[["Member"], None]
    on_truncated: Callable[[Mapping[Partition, int]], None]


class Member(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """A consumer in a group; `owned` are the partitions that are assigned to it now."""

    def __init__(
        self, group: str, context: KafkaContext, offsets: Offsets, listener: RebalanceListener
    ) -> None:
        self._group, self._context, self._timeouts = group, context, context.timeouts
        self._offsets, self._listener = offsets, listener
        self._consumer = AIOKafkaConsumer(**_options(group, context))
        self._ended = False
        # When it last was assigned partitions, got records, or had none to get.
        self._healthy_at = context.clock.monotonic()
        self._commit_refused_at: float | None = None  # None again after a rebalance
        self._is_in_generation = False  # whether the group's present generation includes it
        self._from_oldest: set[TopicPartition] = set()  # never committed, and moved to their oldest record
        self.owned: frozenset[Partition] = frozenset()

    async def join(self, topics: Sequence[str]) -> None:
        """Connects, then joins in the background.

        Raises:
            LogUnavailable: No broker answers.
        """
        async with self._answering("join"):
            await started(self._consumer, self._stop)
        self._consumer.subscribe(list(topics), listener=self)

    async def end(self) -> None:
        """Leaves the group within `timeouts.stop`, so that other members take over at once."""
        self._ended = True
        self.owned = frozenset()
        await self._stop(self._consumer)

    async def poll(self, max_records: int, timeout: float) -> list[Record]:
        """Returns records that arrive within `timeout` seconds. Raises what aiokafka raises.

        It waits longer, without a limit, during a rebalance, and must not be cancelled unless the member is ended
        afterwards. The caller continues without an await, so that no rebalance happens before it stores the records.
        """
        try:
            found = await self._consumer.getmany(timeout_ms=int(timeout * 1000), max_records=max_records)
        except NoOffsetForPartitionError:
            await self._start_at_oldest()
            return []
        except OffsetOutOfRangeError as error:
            self._listener.on_truncated(await skip_truncated(self._consumer, error))
            return []
        if found:
            self._healthy_at = self._context.clock.monotonic()
        return [record_of(record) for records in found.values() for record in records]

    def pause(self, partitions: AbstractSet[Partition]) -> None:
        """Pauses those of these partitions that it owns."""
        self._consumer.pause(*_topic_partitions(partitions & self.owned))

    def resume(self, partitions: AbstractSet[Partition]) -> None:
        """Resumes those of these partitions that it owns."""
        self._consumer.resume(*_topic_partitions(partitions & self.owned))

    async def commit(self, finished: Mapping[Partition, int]) -> None:
        """Commits offsets, as `Group.commit` says."""
        offsets = {TopicPartition(*one): offset for one, offset in finished.items() if one in self.owned}
        if not offsets:
            return  # without offsets, aiokafka would commit what was read
        async with self._answering("commit"):
            try:
                await self._consumer.commit(offsets)
            except (CommitFailedError, IllegalStateError):
                # A rebalance came first: the new owners read these records again.
                self._commit_refused_at = self._commit_refused_at or self._context.clock.monotonic()

    async def lag(self) -> dict[Partition, int]:
        """Returns the lag of each owned partition, as `Group.lag` says."""
        owned = _topic_partitions(self.owned)
        ends, oldest = await self._offsets.ends(owned), await self._offsets.oldest(owned)
        async with self._answering("lag"):
            committed = {one: await self._consumer.committed(one) or 0 for one in owned}
        return {Partition(*one): ends[one] - max(committed[one], oldest[one]) for one in owned}

    async def is_stuck(self, paused: AbstractSet[Partition]) -> bool:
        """Returns whether the member should be replaced, as aiokafka's background tasks can hang without another sign.

        It should when, for `timeouts.stall`, it had no assignment, commits were refused, or records did not arrive.

        Raises:
            LogUnavailable: No broker answers.
        """
        now, stall = self._context.clock.monotonic(), self._timeouts.stall
        if self._commit_refused_at is not None and now - self._commit_refused_at > stall:
            return True
        if now - self._healthy_at < stall:
            return False
        unread = _topic_partitions(self.owned - paused)
        if not self._is_in_generation or await is_behind(self._consumer, unread, self._offsets):
            return True
        self._healthy_at = now
        return False

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:  # noqa: ARG002 (all of them)
        """Called by aiokafka."""
        if not self._ended:
            self._is_in_generation = False
            self._listener.on_revoked(self)
            self.owned = frozenset()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Called by aiokafka, also without partitions, when there are more members than partitions."""
        if not self._ended:
            self._is_in_generation = True
            self._from_oldest.clear()
            self.owned = frozenset(Partition(*one) for one in assigned)
            self._healthy_at, self._commit_refused_at = self._context.clock.monotonic(), None
            self._listener.on_assigned(self)

    async def _start_at_oldest(self) -> None:
        """Moves to the oldest record wherever this group never committed.

        aiokafka reports one such partition at a time, which would take long for many.
        """
        never = [
            one
            for one in self._consumer.assignment() - self._from_oldest
            if await self._consumer.committed(one) is None
        ]
        self._from_oldest |= set(never)
        still_assigned = [one for one in never if one in self._consumer.assignment()]
        if still_assigned:
            await self._consumer.seek_to_beginning(*still_assigned)

    def _answering(self, what: str) -> AbstractAsyncContextManager[None]:
        return answering(f"{what} of group {self._group}", self._context.cluster, self._timeouts.request)

    async def _stop(self, consumer: AIOKafkaConsumer) -> None:
        await end_consumer(consumer, self._timeouts.stop)


def _topic_partitions(partitions: Collection[Partition]) -> list[TopicPartition]:
    return [TopicPartition(*one) for one in partitions]


def _options(group: str, context: KafkaContext) -> dict[str, Any]:
    timeouts = context.timeouts
    return {
        **consumer_options(context),
        "group_id": group,
        "session_timeout_ms": int(timeouts.session * 1000),
        "heartbeat_interval_ms": int(timeouts.heartbeat * 1000),
        # aiokafka's default is the session time-out, too short for members that finish copies first.
        "rebalance_timeout_ms": int(timeouts.rebalance * 1000),
        "max_poll_interval_ms": int(timeouts.poll * 1000),
        # A request to join is answered when the rebalance is over.
        "request_timeout_ms": int((timeouts.rebalance + 5) * 1000),
        # One only: with several, aiokafka asks to join once for each.
        "partition_assignment_strategy": (RoundRobinPartitionAssignor,),
    }
