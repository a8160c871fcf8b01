"""The first and last offsets of partitions, asked for on a connection of its own.

The connection of a reader answers nothing while the broker holds a fetch open on it, which would cost half a second.
"""

from collections.abc import Collection, Mapping
from datetime import datetime

from aiokafka import AIOKafkaConsumer, TopicPartition

from mesh.log.kafka.clients import SharedClient, borrowed, end_consumer
from mesh.log.kafka.cluster import KafkaContext
from mesh.log.kafka.reading import consumer_options


class Offsets:
    """Shared by all readers of a process. Every method raises `LogUnavailable` when no broker answers."""

    def __init__(self, context: KafkaContext) -> None:
        self._context = context
        self._client: SharedClient[AIOKafkaConsumer] = SharedClient(self._create, self._end)

    async def ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Returns the offset that the next record of each partition gets. The partitions must exist."""
        context = self._context
        async with borrowed(
            self._client, "ask for ends", context.cluster, context.timeouts.request
        ) as client:
            ends: dict[TopicPartition, int] = await client.end_offsets(list(partitions))
        return ends

    async def oldest(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Returns the offset of the oldest record of each partition, or its end. The partitions must exist."""
        context = self._context
        async with borrowed(
            self._client, "ask for oldest", context.cluster, context.timeouts.request
        ) as client:
            oldest: dict[TopicPartition, int] = await client.beginning_offsets(list(partitions))
        return oldest

    async def count_before(
        self, time: datetime, partitions: Collection[TopicPartition], positions: Mapping[TopicPartition, int]
    ) -> int:
        """Returns how many records from `positions` on, or from the oldest on, were written before `time`."""
        context = self._context
        since = int(time.timestamp() * 1000)
        async with borrowed(
            self._client, "ask for offsets by time", context.cluster, context.timeouts.request
        ) as client:
            found = await client.offsets_for_times(dict.fromkeys(partitions, since))
            ends = await client.end_offsets(list(partitions))
            oldest = await client.beginning_offsets(list(partitions))
        younger = {one: at.offset if (at := found.get(one)) is not None else ends[one] for one in partitions}
        return sum(max(0, younger[one] - max(oldest[one], positions.get(one, 0))) for one in partitions)

    async def close(self) -> None:
        """Closes the connection."""
        await self._client.close()

    def _create(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(**consumer_options(self._context))

    async def _end(self, client: AIOKafkaConsumer) -> None:
        await end_consumer(client, self._context.timeouts.stop)


async def is_behind(
    consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition], offsets: Offsets
) -> bool:
    """Returns whether `partitions` have records that `consumer` has not delivered."""
    if not partitions:
        return False
    ends = await offsets.ends(partitions)
    assigned = consumer.assignment()  # some may have been revoked meanwhile
    return any([await consumer.position(one) < end for one, end in ends.items() if one in assigned])
