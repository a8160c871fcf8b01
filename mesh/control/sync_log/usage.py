"""How many bytes were sent, summed up from the sync log: for whom, by what, and along which links."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, Text, cast, func, or_, select, true

from mesh.control.storage.database import Database
from mesh.control.storage.tables import sync_log

Sums = Mapping[str, Sequence[Mapping[str, Any]]]

_SENT = func.sum(sync_log.c.bytes_transferred)
_NOT_SAID = ("{}", "null")  # of entries that older agents wrote, and of tasks that sent nothing


class Usage:
    """Raises `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def since(self, time: datetime | None) -> Sums:
        """Of tasks that ended since then, or of all: `accounts`, `rules` and `links`, the most first.

        A transaction for each, so that the writer of the sync log gets its turn between them.
        """
        return {
            "accounts": await self._database.run(lambda connection: _accounts(connection, time)),
            "rules": await self._database.run(lambda connection: _rules(connection, time)),
            "links": await self._database.run(lambda connection: _links(connection, time)),
        }


def _counts(time: datetime | None) -> Any:
    sent = sync_log.c.bytes_transferred > 0
    return sent if time is None else sent & (sync_log.c.end_time >= time)


def _accounts(connection: Connection, time: datetime | None) -> list[dict[str, Any]]:
    """The account of the source: its registry sent them."""
    column = sync_log.c
    wanted = select(column.account, _SENT, func.count()).where(_counts(time)).group_by(column.account)
    found = [
        {"account": account, "bytes": int(sent), "tasks": count}
        for account, sent, count in connection.execute(wanted)
    ]
    return _most_first(found)


def _rules(connection: Connection, time: datetime | None) -> list[dict[str, Any]]:
    column = sync_log.c
    key = (column.rule, column.replica)
    wanted = select(*key, _SENT, func.count()).where(_counts(time)).group_by(*key)
    found = [
        {"rule": rule, "replica": replica, "bytes": int(sent), "tasks": count}
        for rule, replica, sent, count in connection.execute(wanted)
    ]
    return _most_first(found)


def _links(connection: Connection, time: datetime | None) -> list[dict[str, Any]]:
    """By the region that sent the bytes, which need not be the source's; where that was not told, the source's."""
    sums: dict[tuple[str, str], int] = {}
    for wanted in (_told(connection, time), _not_told(time)):
        for sender, to, sent in connection.execute(wanted):
            sums[sender, to] = sums.get((sender, to), 0) + int(sent)
    found = [{"from": sender, "to": to, "bytes": sent} for (sender, to), sent in sums.items()]
    return _most_first(found)


def _told(connection: Connection, time: datetime | None) -> Any:
    """One row for each sender of an entry; the two engines have one function for that, under two names."""
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
        .where(_counts(time), column.bytes_from.is_not(None))
        .group_by(region, to)
    )


def _not_told(time: datetime | None) -> Any:
    column = sync_log.c
    key = (column.source_region, column.destination_region)
    silent = or_(column.bytes_from.is_(None), cast(column.bytes_from, Text).in_(_NOT_SAID))
    return select(*key, _SENT).where(_counts(time), silent).group_by(*key)


def _most_first(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(found, key=lambda it: (-it["bytes"], [str(value) for value in it.values()]))
