"""Following a topic on Kafka: all partitions, from the oldest record or from given positions, without a group.

A consumer that fails or makes no progress is replaced by one that continues at the same positions, so a follower
outlives its brokers.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from mesh.errors import LogUnavailable
from mesh.log.kafka.clients import end_consumer, started
from mesh.log.kafka.cluster import KafkaContext
from mesh.log.kafka.failures import answering
from mesh.log.kafka.offsets import Offsets, is_behind
from mesh.log.kafka.reading import consumer_options, record_of, skip_truncated
from mesh.log.port import Batch, Record

LOG = structlog.get_logger()

_POLL = 1.0  # seconds that one read waits for records
_RETRY = 1.0  # seconds between two attempts to reach Kafka


class Follower:
    """One reader of one topic."""

    def __init__(
        self,
        topic: str,
        context: KafkaContext,
        offsets: Offsets,
        *,
        numbers: Callable[[str], Awaitable[Sequence[int]]],
    ) -> None:
        """`numbers` returns the partition numbers of a topic, or raises `LogError` when it does not exist."""
        self._topic, self._context, self._timeouts = topic, context, context.timeouts
        self._offsets, self._numbers = offsets, numbers
        self._consumer: AIOKafkaConsumer | None = None
        self._partitions: list[TopicPartition] = []
        self._positions: dict[int, int] = {}
        self._progress_at = 0.0
        self._closed = False

    async def batches(self, start: Mapping[int, int]) -> AsyncGenerator[Batch, None]:
        """Yields batches as `Log.follow` does; ends only when the log is closed."""
        self._positions = dict(start)
        reported: Mapping[int, int] | None = None
        try:
            while not self._closed:
                records = await self._read_or_restart()
                if self._partitions and (records or self._positions != reported):
                    reported = dict(self._positions)
                    yield Batch(records, reported)
        finally:
            await self.close()

    async def close(self) -> None:
        """Ends the consumer."""
        self._closed = True
        await self._end()

    async def _read_or_restart(self) -> list[Record]:
        """Returns some records, often none."""
        try:
            if self._consumer is None:
                await self._start()
                return []  # so that the positions of an empty topic are reported at once
            return await self._read(self._consumer)
        except LogUnavailable as error:
            if not self._closed:
                await self._end()
                LOG.warning(
                    "following starts again", action="log_follow_again", topic=self._topic, error=str(error)
                )
                await self._context.clock.sleep(_RETRY)
            return []

    async def _start(self) -> None:
        partitions = [TopicPartition(self._topic, number) for number in await self._numbers(self._topic)]
        oldest = await self._offsets.oldest(partitions)
        async with answering(f"follow {self._topic}", self._context.cluster, self._timeouts.request):
            consumer = await started(AIOKafkaConsumer(**consumer_options(self._context)), self._stop)
        self._consumer = consumer
        consumer.assign(partitions)
        for partition in partitions:
            position = self._positions.setdefault(partition.partition, oldest[partition])
            consumer.seek(partition, position)
        self._partitions = partitions
        self._progress_at = self._context.clock.monotonic()

    async def _read(self, consumer: AIOKafkaConsumer) -> list[Record]:
        within = _POLL + self._timeouts.request
        async with answering(f"follow {self._topic}", self._context.cluster, within):
            try:
                found = await consumer.getmany(timeout_ms=int(_POLL * 1000))
            except OffsetOutOfRangeError as error:
                await skip_truncated(consumer, error)
                found = {}
            for partition in self._partitions:
                self._positions[partition.partition] = await consumer.position(partition)
        await self._check_progress(consumer, progress=bool(found))
        return [record_of(record) for records in found.values() for record in records]

    async def _check_progress(self, consumer: AIOKafkaConsumer, *, progress: bool) -> None:
        """Raises `LogUnavailable` when there are records and none arrived for `timeouts.stall`."""
        now = self._context.clock.monotonic()
        if not progress and now - self._progress_at < self._timeouts.stall:
            return
        if not progress and await is_behind(consumer, self._partitions, self._offsets):
            raise LogUnavailable(
                f"follow {self._topic}: there are records, and none arrived for {self._timeouts.stall:g} s"
            )
        self._progress_at = now

    async def _end(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await self._stop(consumer)

    async def _stop(self, consumer: AIOKafkaConsumer) -> None:
        await end_consumer(consumer, self._timeouts.stop)
