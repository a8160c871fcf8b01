"""Where partitions begin and end, asked on connections of its own.

A reader's own connection answers nothing while the broker holds a fetch open on it, which would cost half a second.
"""

from collections.abc import Collection

from aiokafka import AIOKafkaConsumer, TopicPartition

from mesh.log.kafka.clients import Kept, borrowed, end_consumer
from mesh.log.kafka.reading import reading_options
from mesh.log.kafka.settings import Cluster, KafkaTimeouts


class Offsets:
    """Shared by all readers of a process. Every method raises `LogUnavailable` when nobody answers."""

    def __init__(self, cluster: Cluster, timeouts: KafkaTimeouts) -> None:
        self._cluster, self._timeouts = cluster, timeouts
        self._asker: Kept[AIOKafkaConsumer] = Kept(self._make, self._end)

    async def ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset that the next record of each gets. The partitions must exist."""
        async with borrowed(
            self._asker, "ask for ends", self._cluster, self._timeouts.request_timeout
        ) as asker:
            ends: dict[TopicPartition, int] = await asker.end_offsets(list(partitions))
        return ends

    async def oldest(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset of the oldest record of each, or its end when there is none. The partitions must exist."""
        async with borrowed(
            self._asker, "ask for oldest", self._cluster, self._timeouts.request_timeout
        ) as asker:
            oldest: dict[TopicPartition, int] = await asker.beginning_offsets(list(partitions))
        return oldest

    async def close(self) -> None:
        await self._asker.close()

    def _make(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **reading_options(self._cluster), request_timeout_ms=int(self._timeouts.request_timeout * 1000)
        )

    async def _end(self, asker: AIOKafkaConsumer) -> None:
        await end_consumer(asker, self._timeouts.stop_timeout)


async def is_behind(
    consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition], offsets: Offsets
) -> bool:
    """Whether `partitions` have something that `consumer` has not delivered."""
    if not partitions:
        return False
    ends = await offsets.ends(partitions)
    ours = consumer.assignment()  # some may have gone to others meanwhile
    return any([await consumer.position(one) < end for one, end in ends.items() if one in ours])
