"""Retention of the embedded log: deletes tombstones that readers had time to see, and records past their retention.

A group that has not finished records delays their deletion, but only while it has members: one that nobody has joined
for as long as its topic keeps records, such as the groups of a region that was removed, is deleted.
"""

from collections.abc import Callable, Collection
from datetime import datetime

import structlog

from mesh.log.sqlite.statements import StoredPartition, Topic, Transaction
from mesh.log.sqlite.store import Store
from schemas.topics import Cleanup, TopicSettings, settings

LOG = structlog.get_logger()
_CHUNK = 2000  # records of one transaction: appends wait behind it
_PAGES = 500  # free pages that one transaction gives back
_KEPT_PAGES = 1024  # 4 MiB, so that ordinary work does not grow and shrink the file
_WARN_AFTER_MS = 24 * 3600 * 1000  # records that are overdue by more than this are logged


async def sweep(store: Store, now: datetime, joined: Callable[[str], Collection[str] | None]) -> None:
    """Deletes expired records of all topics, in small transactions, and gives free pages back to the file system.

    Args:
        store: The log.
        now: The present time.
        joined: Returns the groups that have a member which reads a topic; None when it is not known yet.

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
            await _sweep_partition(store, topic, stored, wanted, now_ms, joined)
    while (
        await store.writer.run(lambda t: t.give_back(_PAGES, keep=_KEPT_PAGES), size=_PAGES << 12) == _PAGES
    ):
        pass


async def _sweep_partition(
    store: Store, topic: Topic, stored: StoredPartition, wanted: TopicSettings, now_ms: int,
    joined: Callable[[str], Collection[str] | None],
) -> None:  # fmt: skip
    if topic.cleanup is Cleanup.COMPACT:
        before = now_ms - wanted.tombstone_ms
        while await store.writer.run(lambda t: t.sweep_tombstones(stored.id, before, _CHUNK)) == _CHUNK:
            pass
    elif wanted.retention_ms is not None:
        before = now_ms - wanted.retention_ms
        groups = joined(stored.partition.topic)
        if groups is not None:
            await _expire_groups(store, stored, groups, now_ms, before)
        while await store.writer.run(lambda t: t.sweep_expired(stored.id, before, _CHUNK)) == _CHUNK:
            pass
        await store.writer.run(lambda t: _warn_if_held(t, stored, before))


async def _expire_groups(
    store: Store, stored: StoredPartition, joined: Collection[str], now_ms: int, before: int
) -> None:
    expired = await store.writer.run(lambda t: t.expire_commits(stored.id, joined, now=now_ms, before=before))
    for group in expired:
        LOG.info(
            "a group was deleted: nobody has joined it for as long as its topic keeps records",
            action="log_group_deleted", topic=stored.partition.topic, partition=stored.partition.number, group=group,
        )  # fmt: skip


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
