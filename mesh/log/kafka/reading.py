"""Shared by both kinds of Kafka readers: consumer settings, records as the port has them, truncated offsets."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from mesh.log.kafka.settings import Cluster
from mesh.log.port import Partition, Record

log = structlog.get_logger()

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def reading_options(cluster: Cluster) -> dict[str, Any]:
    """For every consumer of ours: no offset is ever chosen or committed by the client itself."""
    return {
        **cluster.client_options(),
        "auto_offset_reset": "none",
        "enable_auto_commit": False,
        "fetch_max_bytes": 8 * 1024 * 1024,  # of each broker, held in memory until it is read
        # A partition that is resumed waits for the fetch that is under way without it.
        "fetch_max_wait_ms": 200,
    }


def record_of(found: ConsumerRecord) -> Record:
    return Record(
        partition=Partition(found.topic, found.partition),
        offset=found.offset,
        key=(found.key or b"").decode(errors="replace"),
        value=found.value,
        written_at=_EPOCH + timedelta(milliseconds=found.timestamp),
    )


async def start_again_from_oldest(
    consumer: AIOKafkaConsumer, error: OffsetOutOfRangeError
) -> Mapping[Partition, int]:
    """Go on after records were gone before they were read: retention was too short, or the topic was made anew.

    Returns up to which offset each of these partitions had been read.
    """
    moved: dict[TopicPartition, int] = error.args[0]
    still_ours = [partition for partition in moved if partition in consumer.assignment()]
    if still_ours:
        await consumer.seek_to_beginning(*still_ours)
    for partition, offset in moved.items():
        log.error(
            "records were gone before they were read; reading on from the oldest",
            action="log_truncated",
            topic=partition.topic,
            partition=partition.partition,
            read_up_to=offset,
        )
    return {Partition(*one): offset for one, offset in moved.items() if one in still_ours}
