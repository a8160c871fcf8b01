"""Deletes old entries of the sync log, and keeps daily sums of what they had sent, so that usage stays right."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import structlog
from sqlalchemy import Connection, delete, insert, select, update

from mesh.control.ports import ControlPorts
from mesh.control.settings import ControlSettings
from mesh.control.storage.database import Database
from mesh.control.storage.tables import executions, sync_log, usage_days
from mesh.control.sync_log.entry import Row
from schemas.completions import Status

LOG = structlog.get_logger()

_INTERVAL = 3600.0  # seconds
_CHUNK = 500  # entries of one transaction: others wait behind it


class UsageKey(NamedTuple):
    """What usage is summed up by; the names are those of columns."""

    day: datetime
    account: str
    rule: str
    replica: str
    sender: str
    destination_region: str


class UsageSum(NamedTuple):
    """What some entries had sent: `bytes` and `tasks` count an entry once, `link_bytes` one sender's part of each."""

    bytes: int = 0
    tasks: int = 0
    link_bytes: int = 0

    def plus(self, other: "UsageSum") -> "UsageSum":
        """Returns the sum of both."""
        return UsageSum(
            self.bytes + other.bytes, self.tasks + other.tasks, self.link_bytes + other.link_bytes
        )


class Retention:
    """Trims the sync log. Several controls may do so at the same time: each entry is deleted and summed up once."""

    def __init__(self, database: Database, *, ports: ControlPorts, settings: ControlSettings) -> None:
        self._database, self._ports = database, ports
        self._kept = timedelta(seconds=settings.sync_log_retention)

    async def run(self) -> None:
        """Trims the sync log every hour until cancelled."""
        await self._ports.retry_loop("sync_log_retention").repeat(self.trim, _INTERVAL)

    async def trim(self) -> None:
        """Deletes entries that are older than the settings keep them, then gives free space back.

        Raises:
            DatabaseUnavailable: The database does not answer; what was deleted is summed up.
        """
        before = self._ports.clock.now() - self._kept
        deleted = 0
        while count := await self._database.run(lambda connection: _trim(connection, before)):
            deleted += count
        if deleted:
            LOG.info("old entries were deleted", action="sync_log_trimmed", entries=deleted)
        await self._database.give_back()


def _trim(connection: Connection, before: datetime) -> int:
    """Entries of running executions stay, since the end of an execution is found by counting its entries."""
    column = sync_log.c
    running = select(executions.c.id).where(executions.c.status == Status.IN_PROGRESS.value)
    old = select(column.task_id).where(column.end_time < before, column.execution_id.not_in(running))
    oldest = connection.execute(old.order_by(column.end_time).limit(_CHUNK)).scalars().all()
    deleting = delete(sync_log).where(column.task_id.in_(oldest)).returning(*_SUMMED)
    rows = connection.execute(deleting).mappings().all() if oldest else []
    _add(connection, summed_up([dict(row) for row in rows]))
    return len(rows)


_SUMMED = tuple(
    sync_log.c[name]
    for name in (
        "end_time", "account", "rule", "replica", "source_region", "destination_region", "bytes_transferred",
        "bytes_from",
    )
)  # fmt: skip


def summed_up(entries: Sequence[Row]) -> Mapping[UsageKey, UsageSum]:
    """Returns what these entries had sent; those that sent nothing count for nothing."""
    sums: dict[UsageKey, UsageSum] = {}
    for row in entries:
        sent = row["bytes_transferred"]
        if sent <= 0:
            continue
        senders = row["bytes_from"] or {row["source_region"]: sent}
        for number, (sender, part) in enumerate(senders.items()):
            one = UsageSum(sent, 1, part) if number == 0 else UsageSum(link_bytes=part)
            key = UsageKey(
                day_of(row["end_time"]), row["account"], row["rule"] or "", row["replica"] or "", sender,
                row["destination_region"],
            )  # fmt: skip
            sums[key] = sums.get(key, UsageSum()).plus(one)
    return sums


def day_of(time: datetime) -> datetime:
    """Returns the start of a time's day, in UTC."""
    return time.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _add(connection: Connection, sums: Mapping[UsageKey, UsageSum]) -> None:
    column = usage_days.c
    for key, one in sorted(sums.items()):  # so that two writers do not deadlock
        same = [column[name] == value for name, value in key._asdict().items()]
        more: dict[str, Any] = {name: column[name] + value for name, value in one._asdict().items()}
        if connection.execute(update(usage_days).where(*same).values(more)).rowcount == 0:
            connection.execute(insert(usage_days).values(**key._asdict(), **one._asdict()))
