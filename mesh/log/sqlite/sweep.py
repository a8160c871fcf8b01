"""Retention of the embedded log: deletes tombstones that readers had time to see, and records past their retention."""

from datetime import datetime

import structlog

from mesh.log.sqlite.statements import StoredPartition, Topic, Transaction
from mesh.log.sqlite.store import Store
from schemas.topics import Cleanup, TopicSettings, settings

LOG = structlog.get_logger()
_CHUNK = 2000  # records of one transaction: appends wait behind it
_WARN_AFTER_MS = 24 * 3600 * 1000  # records that are overdue by more than this are logged


async def sweep(store: Store, now: datetime) -> None:
    """Deletes expired records of all topics, in small transactions.

    Raises:
        LogUnavailable: The disk fails.
    """
    now_ms = int(now.timestamp() * 1000)
    for name, topic in store.topics.items():
        try:
            wanted = settings(name)
        except KeyError:
            continue  # a topic of another version of regmesh; its retention is unknown
        for stored in topic.partitions:
            await _sweep_partition(store, topic, stored, wanted, now_ms)


async def _sweep_partition(
    store: Store, topic: Topic, stored: StoredPartition, wanted: TopicSettings, now_ms: int
) -> None:
    if topic.cleanup is Cleanup.COMPACT:
        before = now_ms - wanted.tombstone_ms
        while await store.writer.run(lambda t: t.sweep_tombstones(stored.id, before, _CHUNK)) == _CHUNK:
            pass
    elif wanted.retention_ms is not None:
        before = now_ms - wanted.retention_ms
        while await store.writer.run(lambda t: t.sweep_expired(stored.id, before, _CHUNK)) == _CHUNK:
            pass
        await store.writer.run(lambda t: _warn_if_held(t, stored, before))


def _warn_if_held(transaction: Transaction, stored: StoredPartition, before: int) -> None:
    oldest = transaction.oldest_written_at(stored.id)
    slowest = transaction.slowest(stored.id)
    if oldest is not None and slowest is not None and oldest < before - _WARN_AFTER_MS:
        LOG.warning(
            "a group delays the deletion of old records",
            action="log_held",
            topic=stored.partition.topic,
            partition=stored.partition.number,
            group=slowest.group,
            overdue_hours=(before - oldest) // 3_600_000,
        )
