"""What the embedded log forgets: tombstones that everybody had time to see, and events past their retention."""

from datetime import datetime

import structlog

from mesh.log.sqlite.statements import Place, Topic, Transaction
from mesh.log.sqlite.store import Store
from schemas.topics import Cleanup, TopicSettings, settings

LOG = structlog.get_logger()
_CHUNK = 2000  # records of one transaction: appends wait behind it
_MUCH_MS = 24 * 3600 * 1000  # overdue by more than this, a human should know


async def sweep(store: Store, now: datetime) -> None:
    """One pass over all topics, in small transactions; `LogUnavailable` when the disk refuses."""
    now_ms = int(now.timestamp() * 1000)
    for name, topic in store.topics.items():
        try:
            wanted = settings(name)
        except KeyError:
            continue  # of another version of ours: what it may forget is not known
        for place in topic.places:
            await _sweep_partition(store, topic, place, wanted, now_ms)


async def _sweep_partition(
    store: Store, topic: Topic, place: Place, wanted: TopicSettings, now_ms: int
) -> None:
    if topic.cleanup is Cleanup.COMPACT:
        before = now_ms - wanted.tombstone_ms
        while await store.writer.run(lambda t: t.sweep_tombstones(place.id, before, _CHUNK)) == _CHUNK:
            pass
    elif wanted.retention_ms is not None:
        before = now_ms - wanted.retention_ms
        while await store.writer.run(lambda t: t.sweep_expired(place.id, before, _CHUNK)) == _CHUNK:
            pass
        await store.writer.run(lambda t: _warn_if_held(t, place, before))


def _warn_if_held(transaction: Transaction, place: Place, before: int) -> None:
    oldest = transaction.oldest_written_at(place.id)
    slowest = transaction.slowest(place.id)
    if oldest is not None and slowest is not None and oldest < before - _MUCH_MS:
        LOG.warning(
            "a group holds back old records",
            action="log_held",
            topic=place.partition.topic,
            partition=place.partition.number,
            group=slowest.group,
            overdue_hours=(before - oldest) // 3_600_000,
        )
