"""Sums up how many bytes were sent, by account, by rule or replica, and by link.

They come from the sync log, and of entries that were deleted since from daily sums.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Text, cast, func, or_, select, true

from mesh.control.storage.database import Database
from mesh.control.storage.tables import sync_log, usage_days
from mesh.control.sync_log.retention import day_of

Sums = Mapping[str, Sequence[Mapping[str, Any]]]

_SENT = func.sum(sync_log.c.bytes_transferred)
_NO_SENDERS = ("{}", "null")  # in entries of older agents, and of tasks that sent nothing


class Usage:
    """Reads usage. Raises `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def since(self, time: datetime | None) -> Sums:
        """Returns the usage of tasks that ended since a time, or of all tasks.

        Of tasks whose entry was deleted since, only the day is known: the day of `time` counts as a whole.

        Each of the three is a transaction of its own, so that the writer of the sync log is not blocked for long.

        Returns:
            Lists under `accounts`, `rules` and `links`, most bytes first.
        """
        return {
            "accounts": await self._database.run(lambda connection: _accounts(connection, time)),
            "rules": await self._database.run(lambda connection: _rules(connection, time)),
            "links": await self._database.run(lambda connection: _links(connection, time)),
        }


def _has_sent(time: datetime | None) -> Any:
    sent = sync_log.c.bytes_transferred > 0
    return sent if time is None else sent & (sync_log.c.end_time >= time)


def _accounts(connection: Connection, time: datetime | None) -> list[dict[str, Any]]:
    """Counts for the account of the source, whose registry sent the bytes."""
    sums = _sums_of_tasks(connection, time, "account")
    return _most_first([{"account": account, **sent} for (account,), sent in sums.items()])


def _rules(connection: Connection, time: datetime | None) -> list[dict[str, Any]]:
    sums = _sums_of_tasks(connection, time, "rule", "replica")
    return _most_first([{"rule": rule, "replica": replica, **sent} for (rule, replica), sent in sums.items()])


def _sums_of_tasks(
    connection: Connection, time: datetime | None, *names: str
) -> dict[tuple[str | None, ...], dict[str, int]]:
    """Returns bytes and tasks by the values of these columns, which both tables have."""
    key, day_key = [sync_log.c[name] for name in names], [usage_days.c[name] for name in names]
    kept = select(*key, _SENT, func.count()).where(_has_sent(time)).group_by(*key)
    deleted = select(*day_key, func.sum(usage_days.c.bytes), func.sum(usage_days.c.tasks))
    sums: dict[tuple[str | None, ...], dict[str, int]] = {}
    for wanted in (kept, deleted.where(_is_since(time)).group_by(*day_key)):
        for *values, sent, tasks in connection.execute(wanted):
            found = sums.setdefault(tuple(value or None for value in values), {"bytes": 0, "tasks": 0})
            found["bytes"] += int(sent)
            found["tasks"] += int(tasks)
    return {key: found for key, found in sums.items() if found["tasks"]}


def _is_since(time: datetime | None) -> ColumnElement[bool]:
    return true() if time is None else usage_days.c.day >= day_of(time)


def _links(connection: Connection, time: datetime | None) -> list[dict[str, Any]]:
    """Groups by the region that sent the bytes, which is not always the source's; if unknown, the source's."""
    sums: dict[tuple[str, str], int] = {}
    for wanted in (_by_sender(connection, time), _by_source(time), _by_link_of_deleted(time)):
        for sender, to, sent in connection.execute(wanted):
            sums[sender, to] = sums.get((sender, to), 0) + int(sent)
    found = [{"from": sender, "to": to, "bytes": sent} for (sender, to), sent in sums.items()]
    return _most_first(found)


def _by_sender(connection: Connection, time: datetime | None) -> Any:
    """Selects one row for each sender of an entry; the function for that has another name in each engine."""
    column = sync_log.c
    each = (
        func.json_each(column.bytes_from)
        if connection.dialect.name == "sqlite"
        else func.json_each_text(column.bytes_from)
    )
    sender = each.table_valued("key", "value")
    region, to = sender.c.key, column.destination_region
    return (
        select(region, to, func.sum(cast(sender.c.value, BigInteger)))
        .select_from(sync_log.join(sender, true()))
        .where(_has_sent(time), column.bytes_from.is_not(None))
        .group_by(region, to)
    )


def _by_source(time: datetime | None) -> Any:
    column = sync_log.c
    key = (column.source_region, column.destination_region)
    unknown = or_(column.bytes_from.is_(None), cast(column.bytes_from, Text).in_(_NO_SENDERS))
    return select(*key, _SENT).where(_has_sent(time), unknown).group_by(*key)


def _by_link_of_deleted(time: datetime | None) -> Any:
    column = usage_days.c
    key = (column.sender, column.destination_region)
    return select(*key, func.sum(column.link_bytes)).where(_is_since(time)).group_by(*key)


def _most_first(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(found, key=lambda it: (-it["bytes"], [str(value) for value in it.values()]))
