"""Writes the sync log: one entry for each task, and in the same transaction the webhook deliveries that report it."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select, update

from mesh.control.settings import ControlSettings
from mesh.control.storage.database import Database
from mesh.control.storage.paging import Page
from mesh.control.storage.tables import deliveries, sync_log
from mesh.control.sync_log import task_counts
from mesh.control.sync_log.entry import Row, entry_of, row_of
from mesh.control.sync_log.log_query import LogQuery
from mesh.control.sync_log.search import search
from mesh.control.sync_log.task_counts import Promises
from mesh.control.webhooks import message
from mesh.errors import DatabaseUnavailable
from schemas.completions import Completion, Status
from schemas.webhooks import Webhook

# A task may run again after a crash. It then finds everything in place and ends `Skipped`, or a registry is unavailable
# and it ends `Failed`; neither undoes the copy. So only a better end replaces another, in whatever order they are read.
_RANK = {Status.FAILED: 0, Status.STOPPED: 1, Status.SKIPPED: 1, Status.SUCCEED: 2}
ENDS = frozenset(_RANK)


class TaskEnd(NamedTuple):
    """How and when a task ended."""

    status: Status
    time: datetime


def replaces(new: TaskEnd, stored: TaskEnd) -> bool:
    """Checks whether `new` replaces the stored end. A repeat never does; of two failures the later one stays."""
    if _RANK[new.status] != _RANK[stored.status]:
        return _RANK[new.status] > _RANK[stored.status]
    return new.status is Status.FAILED and new.time > stored.time


class SyncLog:
    """Every method raises `DatabaseUnavailable`."""

    def __init__(self, database: Database, settings: ControlSettings | None = None) -> None:
        self._database = database
        self._settings = settings or ControlSettings()

    async def write(
        self,
        completions: Sequence[Completion],
        hooks: Sequence[Webhook],
        now: datetime,
        *,
        promises: Promises | None = None,
    ) -> Sequence[Completion]:
        """Stores completions and the deliveries of their webhooks in one transaction. Repeating it changes nothing.

        Args:
            completions: How tasks ended.
            hooks: The declared webhooks.
            now: The present time.
            promises: The freshness promises of rules and replicas; each task counts at its first end.

        Returns:
            The completions that brought a status that their task did not have.
        """

        def step(connection: Connection) -> Sequence[Completion]:
            return _write(connection, completions, hooks, now, promises or {})

        return await self._database.run(step)

    async def read(self, query: LogQuery) -> Page[Row]:
        """Returns a page of rows, newest first. It may have fewer rows than asked for and still have a next page."""
        return await self._database.run(lambda connection: search(connection, query, self._settings))


def _write(
    connection: Connection,
    completions: Sequence[Completion],
    hooks: Sequence[Webhook],
    now: datetime,
    promises: Promises,
) -> Sequence[Completion]:
    stored = _stored(connection, {one.task_id for one in completions})
    latest, news = _merge(stored, completions)
    ordered = [latest[task_id] for task_id in sorted(latest)]  # so that two writers do not deadlock
    if added := [one for one in ordered if one.task_id not in stored]:
        connection.execute(insert(sync_log), [row_of(one) for one in added])
        task_counts.add(connection, added, promises)
    for one in ordered:
        if one.task_id in stored:
            _replace(connection, one, stored[one.task_id])
    if outgoing := list(_outgoing(news, hooks, now)):
        connection.execute(insert(deliveries), outgoing)
    return news


def _stored(connection: Connection, task_ids: set[str]) -> dict[str, TaskEnd]:
    columns = (sync_log.c.task_id, sync_log.c.status, sync_log.c.end_time)
    found = connection.execute(select(*columns).where(sync_log.c.task_id.in_(task_ids)))
    return {task_id: TaskEnd(Status(status), time) for task_id, status, time in found}


def _merge(
    stored: Mapping[str, TaskEnd], completions: Iterable[Completion]
) -> tuple[dict[str, Completion], list[Completion]]:
    """Returns the completion to write for each task, and the completions that brought a new status."""
    known = dict(stored)
    latest: dict[str, Completion] = {}
    news = []
    for one in completions:
        end, before = TaskEnd(one.status, one.end_time), known.get(one.task_id)
        if before is not None and not replaces(end, before):
            continue
        known[one.task_id], latest[one.task_id] = end, one
        if before is None or before.status is not end.status:
            news.append(one)
    return latest, news


def _replace(connection: Connection, new: Completion, old: TaskEnd) -> None:
    unchanged = (sync_log.c.status == old.status.value) & (sync_log.c.end_time == old.time)
    changed = connection.execute(
        update(sync_log).where(sync_log.c.task_id == new.task_id, unchanged).values(row_of(new))
    )
    if changed.rowcount != 1:
        raise DatabaseUnavailable("another control wrote the same task at the same time; it is written again")


def _outgoing(
    news: Iterable[Completion], hooks: Sequence[Webhook], now: datetime
) -> Iterable[dict[str, Any]]:
    for one in news:
        entry = entry_of(row_of(one))
        for hook in hooks:
            if message.wants(hook, one):
                yield message.delivery_row(hook, one, entry, now)
