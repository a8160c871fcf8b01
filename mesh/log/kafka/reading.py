"""Shared by followers and group members: consumer options, conversion of records, truncated offsets."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from mesh.log.kafka.cluster import KafkaContext
from mesh.log.port import Partition, Record

LOG = structlog.get_logger()

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def consumer_options(context: KafkaContext) -> dict[str, Any]:
    """Returns the options of every consumer: the client itself never chooses or commits an offset."""
    return {
        **context.client_options(),
        "auto_offset_reset": "none",
        "enable_auto_commit": False,
        "fetch_max_bytes": 8 * 1024 * 1024,  # per broker, held in memory until it is read
        # A resumed partition waits for the fetch in progress, which does not include it.
        "fetch_max_wait_ms": 200,
    }


def record_of(found: ConsumerRecord) -> Record:
    """Converts a record of aiokafka to one of the port."""
    return Record(
        partition=Partition(found.topic, found.partition),
        offset=found.offset,
        key=(found.key or b"").decode(errors="replace"),
        value=found.value,
        written_at=_EPOCH + timedelta(milliseconds=found.timestamp),
    )


async def skip_truncated(consumer: AIOKafkaConsumer, error: OffsetOutOfRangeError) -> Mapping[Partition, int]:
    """Moves to the oldest records where unread ones were deleted: by retention, or with their topic.

    Returns:
        The offset up to which each of these partitions had been read.
    """
    truncated: dict[TopicPartition, int] = error.args[0]
    still_assigned = [partition for partition in truncated if partition in consumer.assignment()]
    if still_assigned:
        await consumer.seek_to_beginning(*still_assigned)
    for partition, offset in truncated.items():
        LOG.error(
            "records were deleted before they were read; reading continues at the oldest",
            action="log_truncated",
            topic=partition.topic,
            partition=partition.partition,
            read_up_to=offset,
        )
    return {Partition(*one): offset for one, offset in truncated.items() if one in still_assigned}
