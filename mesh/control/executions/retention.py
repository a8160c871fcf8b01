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

    That is the backfill or the baseline of its present revision, which would start anew, and the last success over all
    of it.
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
        revs = {str(rule.name): self._state.rev_of(rule.key) for rule in rules}
        after: Position | None = Position(before, "")
        deleted = 0
        while after is not None:
            step = partial(_trim, before=before, after=after, revs=revs)
            count, after = await self._database.run(step)
            deleted += count
        if deleted:
            LOG.info("old executions were deleted", action="executions_trimmed", executions=deleted)


def _trim(
    connection: Connection, before: datetime, after: Position, revs: Mapping[str, int]
) -> tuple[int, Position | None]:
    """Looks at the next executions, newest first; returns how many were deleted and where to go on."""
    column, later = executions.c, executions.alias().c
    is_repeated = exists().where(
        later.rule == column.rule, later.start_time > column.start_time, later.is_whole == 1,
        later.status == Status.SUCCEED.value,
    )  # fmt: skip
    columns = (
        column.id, column.rule, column.start_time, column.end_time, column.is_whole, column.status,
        column.operation, column.rules_rev, is_repeated.label("is_repeated"),
    )  # fmt: skip
    wanted = select(*columns).where(paging.after(column.start_time, column.id, after))
    rows = connection.execute(wanted.order_by(column.start_time.desc(), column.id.desc()).limit(_CHUNK)).all()
    old = [row for row in rows if row.end_time is not None and row.end_time < before]
    outdated = [row.id for row in old if not _is_needed(row, revs)]
    _delete(connection, outdated)
    return len(outdated), Position(rows[-1].start_time, rows[-1].id) if len(rows) == _CHUNK else None


def _is_needed(row: Any, revs: Mapping[str, int]) -> bool:
    """Checks whether a rule or replica that is declared still depends on the execution; `revs` are of these."""
    if (rev := revs.get(row.rule)) is None:
        return False
    has_succeeded = row.status == Status.SUCCEED.value
    is_last_success = row.is_whole == 1 and has_succeeded and not row.is_repeated
    is_baseline = row.operation == "baseline" and has_succeeded and (row.rules_rev or 0) >= rev
    return is_last_success or is_baseline or row.id == backfill_id(row.rule, rev)


def _delete(connection: Connection, ids: Collection[str]) -> None:
    connection.execute(delete(executions).where(executions.c.id.in_(ids)))
