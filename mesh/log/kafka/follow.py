"""Following a topic on Kafka: all partitions, from the oldest record or from given positions, without a group.

A consumer that fails or makes no progress is built anew from where it stood, so a follower outlives its brokers.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from mesh.clock import Clock
from mesh.errors import LogUnavailable
from mesh.log.kafka.clients import end_consumer, started
from mesh.log.kafka.failures import answering
from mesh.log.kafka.offsets import Offsets, is_behind
from mesh.log.kafka.reading import reading_options, record_of, start_again_from_oldest
from mesh.log.kafka.settings import Cluster, KafkaTimeouts
from mesh.log.port import Batch, Record

log = structlog.get_logger()

_POLL = 1.0  # seconds of one look for records
_RETRY = 1.0  # seconds between two tries to reach Kafka


class Follower:
    """One reader of one topic. `numbers` gives a topic's partitions, or raises `LogError` when it does not exist."""

    def __init__(
        self,
        topic: str,
        cluster: Cluster,
        timeouts: KafkaTimeouts,
        clock: Clock,
        offsets: Offsets,
        *,
        numbers: Callable[[str], Awaitable[Sequence[int]]],
    ) -> None:
        self._topic, self._cluster, self._timeouts, self._clock = topic, cluster, timeouts, clock
        self._offsets, self._numbers = offsets, numbers
        self._consumer: AIOKafkaConsumer | None = None
        self._partitions: list[TopicPartition] = []
        self._positions: dict[int, int] = {}
        self._progress_at = 0.0
        self._closed = False

    async def batches(self, start: Mapping[int, int]) -> AsyncGenerator[Batch, None]:
        """As `Log.follow`; ends only when the log is closed."""
        self._positions = dict(start)
        told: Mapping[int, int] | None = None
        try:
            while not self._closed:
                records = await self._turn()
                if self._partitions and (records or self._positions != told):
                    told = dict(self._positions)
                    yield Batch(records, told)
        finally:
            await self.close()

    async def close(self) -> None:
        self._closed = True
        await self._end()

    async def _turn(self) -> list[Record]:
        """Some records, often none."""
        try:
            if self._consumer is None:
                await self._begin()
                return []  # so that where an empty topic stands is told at once
            return await self._read(self._consumer)
        except LogUnavailable as error:
            if not self._closed:
                await self._end()
                log.warning("following again", action="log_follow_again", topic=self._topic, error=str(error))
                await self._clock.sleep(_RETRY)
            return []

    async def _begin(self) -> None:
        partitions = [TopicPartition(self._topic, number) for number in await self._numbers(self._topic)]
        oldest = await self._offsets.oldest(partitions)
        async with answering(f"follow {self._topic}", self._cluster, self._timeouts.request_timeout):
            consumer = await started(self._make(), self._stop)
        self._consumer = consumer
        consumer.assign(partitions)
        for partition in partitions:
            position = self._positions.setdefault(partition.partition, oldest[partition])
            consumer.seek(partition, position)
        self._partitions = partitions
        self._progress_at = self._clock.monotonic()

    async def _read(self, consumer: AIOKafkaConsumer) -> list[Record]:
        async with answering(f"follow {self._topic}", self._cluster, _POLL + self._timeouts.request_timeout):
            try:
                found = await consumer.getmany(timeout_ms=int(_POLL * 1000))
            except OffsetOutOfRangeError as error:
                await start_again_from_oldest(consumer, error)
                found = {}
            for partition in self._partitions:
                self._positions[partition.partition] = await consumer.position(partition)
        await self._watch(consumer, progress=bool(found))
        return [record_of(one) for several in found.values() for one in several]

    async def _watch(self, consumer: AIOKafkaConsumer, *, progress: bool) -> None:
        """`LogUnavailable` when there is something to read and nothing has come for long."""
        now = self._clock.monotonic()
        if not progress and now - self._progress_at < self._timeouts.stall_timeout:
            return
        if not progress and await is_behind(consumer, self._partitions, self._offsets):
            raise LogUnavailable(
                f"follow {self._topic}: there is more, and none came for {self._timeouts.stall_timeout:g} s"
            )
        self._progress_at = now

    def _make(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **reading_options(self._cluster), request_timeout_ms=int(self._timeouts.request_timeout * 1000)
        )

    async def _end(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await self._stop(consumer)

    async def _stop(self, consumer: AIOKafkaConsumer) -> None:
        await end_consumer(consumer, self._timeouts.stop_timeout)
