"""Deletes old executions."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection, delete, exists, select

from mesh.control.executions.store import backfill_id
from mesh.control.ports import ControlPorts
from mesh.control.settings import ControlSettings
from mesh.control.storage import paging
from mesh.control.storage.database import Database
from mesh.control.storage.paging import Position
from mesh.control.storage.tables import executions
from schemas.completions import Status

LOG = structlog.get_logger()

_INTERVAL = 3600.0  # seconds
_CHUNK = 500  # executions of one transaction: others wait behind it


class Retention:
    """Trims the executions. Of each declared rule and replica it keeps what is asked for again.

    That is the backfill of its present revision, which would start anew, and the last success over all of it.
    """

    def __init__(self, database: Database, *, ports: ControlPorts, settings: ControlSettings) -> None:
        self._database, self._ports, self._state = database, ports, ports.state
        self._kept = timedelta(seconds=settings.execution_retention)

    async def run(self) -> None:
        """Trims the executions every hour until cancelled."""
        await self._ports.retry_loop("execution_retention").repeat(self.trim, _INTERVAL)

    async def trim(self) -> None:
        """Deletes executions that ended longer ago than the settings keep them.

        Raises:
            DatabaseUnavailable: The database does not answer.
        """
        before = self._ports.clock.now() - self._kept
        rules = (*self._state.rules(), *self._state.replica_rules())
        backfills = {str(rule.name): backfill_id(rule.name, self._state.rev_of(rule.key)) for rule in rules}
        after: Position | None = Position(before, "")
        deleted = 0
        while after is not None:
            step = partial(_trim, before=before, after=after, backfills=backfills)
            count, after = await self._database.run(step)
            deleted += count
        if deleted:
            LOG.info("old executions were deleted", action="executions_trimmed", executions=deleted)


def _trim(
    connection: Connection, before: datetime, after: Position, backfills: Mapping[str, str]
) -> tuple[int, Position | None]:
    """Looks at the next executions, newest first; returns how many were deleted and where to go on."""
    column, later = executions.c, executions.alias().c
    is_repeated = exists().where(
        later.rule == column.rule, later.start_time > column.start_time, later.is_whole == 1,
        later.status == Status.SUCCEED.value,
    )  # fmt: skip
    columns = (
        column.id, column.rule, column.start_time, column.end_time, column.is_whole, column.status,
        is_repeated.label("is_repeated"),
    )  # fmt: skip
    wanted = select(*columns).where(paging.after(column.start_time, column.id, after))
    rows = connection.execute(wanted.order_by(column.start_time.desc(), column.id.desc()).limit(_CHUNK)).all()
    old = [row for row in rows if row.end_time is not None and row.end_time < before]
    outdated = [row.id for row in old if not _is_needed(row, backfills)]
    _delete(connection, outdated)
    return len(outdated), Position(rows[-1].start_time, rows[-1].id) if len(rows) == _CHUNK else None


def _is_needed(row: Any, backfills: Mapping[str, str]) -> bool:
    """Checks whether a rule or replica that is declared still depends on the execution."""
    is_last_success = row.is_whole == 1 and row.status == Status.SUCCEED.value and not row.is_repeated
    return row.rule in backfills and (is_last_success or row.id == backfills[row.rule])


def _delete(connection: Connection, ids: Collection[str]) -> None:
    connection.execute(delete(executions).where(executions.c.id.in_(ids)))
