"""The sync log: one entry for each task, as it ended at last, and with it the deliveries that tell of it."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select, update

from mesh.control.storage.database import Database
from mesh.control.storage.tables import deliveries, sync_log
from mesh.control.sync_log import search
from mesh.control.sync_log.entry import entry_of, row_of
from mesh.control.sync_log.log_query import LogQuery
from mesh.control.sync_log.search import Page, Search
from mesh.control.webhooks import signing
from mesh.errors import DatabaseUnavailable
from schemas.completions import Completion, Status
from schemas.webhooks import Webhook

# What an end is worth. A task may run again after a crash: it finds everything there and ends `Skipped`, or finds a
# registry away and ends `Failed`; neither unmakes the copy. So only a better end replaces one, whatever the order in
# which they are read.
_WORTH = {Status.FAILED: 0, Status.STOPPED: 1, Status.SKIPPED: 1, Status.SUCCEED: 2}
ENDS = frozenset(_WORTH)


class End(NamedTuple):
    status: Status
    time: datetime


def replaces(new: End, stored: End) -> bool:
    """Whether `new` is told of the task from now on. A repeat never is; of two failures the later one is."""
    if _WORTH[new.status] != _WORTH[stored.status]:
        return _WORTH[new.status] > _WORTH[stored.status]
    return new.status is Status.FAILED and new.time > stored.time


class SyncLog:
    def __init__(self, database: Database, search: Search | None = None) -> None:
        self._database = database
        self._search = search or Search()

    async def write(
        self, completions: Sequence[Completion], hooks: Sequence[Webhook], now: datetime
    ) -> Sequence[Completion]:
        """Take over ends, and put their deliveries into the outbox; those whose status is news are returned.

        All in one transaction. Doing it again changes nothing. `DatabaseUnavailable`.
        """
        return await self._database.run(lambda connection: _write(connection, completions, hooks, now))

    async def read(self, query: LogQuery) -> Page:
        """`DatabaseUnavailable`."""
        return await self._database.run(lambda connection: search.read(connection, query, self._search))


def _write(
    connection: Connection, completions: Sequence[Completion], hooks: Sequence[Webhook], now: datetime
) -> Sequence[Completion]:
    stored = _stored(connection, {one.task_id for one in completions})
    latest, news = _merge(stored, completions)
    ordered = [
        latest[task_id] for task_id in sorted(latest)
    ]  # two writers must not wait for each other in a circle
    if added := [row_of(one) for one in ordered if one.task_id not in stored]:
        connection.execute(insert(sync_log), added)
    for one in ordered:
        if one.task_id in stored:
            _replace(connection, one, stored[one.task_id])
    if outgoing := list(_outgoing(news, hooks, now)):
        connection.execute(insert(deliveries), outgoing)
    return news


def _stored(connection: Connection, task_ids: set[str]) -> dict[str, End]:
    columns = (sync_log.c.task_id, sync_log.c.status, sync_log.c.end_time)
    found = connection.execute(select(*columns).where(sync_log.c.task_id.in_(task_ids)))
    return {task_id: End(Status(status), time) for task_id, status, time in found}


def _merge(
    stored: Mapping[str, End], completions: Iterable[Completion]
) -> tuple[dict[str, Completion], list[Completion]]:
    """What is to be written of each task, and which completions brought a status that the task did not have."""
    known = dict(stored)
    latest: dict[str, Completion] = {}
    news = []
    for one in completions:
        end, before = End(one.status, one.end_time), known.get(one.task_id)
        if before is not None and not replaces(end, before):
            continue
        known[one.task_id], latest[one.task_id] = end, one
        if before is None or before.status is not end.status:
            news.append(one)
    return latest, news


def _replace(connection: Connection, new: Completion, old: End) -> None:
    unchanged = (sync_log.c.status == old.status.value) & (sync_log.c.end_time == old.time)
    changed = connection.execute(
        update(sync_log).where(sync_log.c.task_id == new.task_id, unchanged).values(row_of(new))
    )
    if changed.rowcount != 1:
        raise DatabaseUnavailable("another control wrote the same task just now; it is tried again")


def _outgoing(
    news: Iterable[Completion], hooks: Sequence[Webhook], now: datetime
) -> Iterable[dict[str, Any]]:
    for one in news:
        entry = entry_of(row_of(one))
        for hook in hooks:
            if signing.wants(hook, one):
                yield signing.delivery(hook, one, entry, now)
