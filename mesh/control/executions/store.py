"""Executions as control's database keeps them: what was asked, how much was listed, and how it ended.

Fed from `mesh.commands`; what the tasks came to is counted in the sync log. Every step may be done again.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, exists, func, insert, literal, select, tuple_, update

from mesh.control.storage.database import Database
from mesh.control.storage.tables import Moment, executions, sync_log
from mesh.control.sync_log.entry import Row, rfc3339
from mesh.control.sync_log.log_query import Position
from schemas.completions import REFUSAL_CODES, Side, Status, TaskError
from schemas.envelope import make_id
from schemas.executions import ExecutionListed, ExecutionStart, ExecutionStop

Command = ExecutionStart | ExecutionListed | ExecutionStop

_ENDS = (Status.SUCCEED, Status.FAILED, Status.SKIPPED, Status.STOPPED)
_SUMS = ("bytes_total", "bytes_transferred", "bytes_skipped")
_SHOWN = (
    "id",
    "rule",
    "region",
    "trigger",
    "repository",
    "tag",
    "dry_run",
    "operation",
    "status",
    "start_time",
    "end_time",
    "total",
    "surplus",
)


def backfill_id(rule: str, rev: int) -> str:
    """Of the one backfill of a rule, or of a replica, as it holds since revision `rev`."""
    return make_id("execution", rule, "backfill", rev)


class Standing(NamedTuple):
    """A rule as it is declared, and the last revision by which it was not (-1: none that is known)."""

    source: str
    destination: str
    removed_at: int


class Executions:
    """Every method raises `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, commands: Sequence[Command]) -> None:
        """Take over records of `mesh.commands`, in their order."""
        await self._database.run(lambda connection: _take(connection, commands))

    async def settle(self, rules: Mapping[str, Standing], now: datetime) -> bool:
        """End those whose tasks have all ended, and those whose rule is no more: nobody will end their tasks.

        Whether any was ended.

        `rules` are the declared ones. With another source or destination a rule is another one, and so is one that was
        declared no more in between: what its agents read meanwhile they left alone.
        """
        return await self._database.run(lambda connection: _settle(connection, rules, now))

    async def get(self, execution_id: str) -> dict[str, Any] | None:
        """As the API shows it; None when there is none."""
        wanted = select(executions).where(executions.c.id == execution_id)
        found = await self._database.run(lambda connection: _shown(connection, wanted))
        return found[0] if found else None

    async def status(self, execution_id: str) -> Status | None:
        """Nothing is counted; None when there is none."""
        wanted = select(executions.c.status).where(executions.c.id == execution_id)
        found = await self._database.run(lambda connection: connection.execute(wanted).scalar())
        return None if found is None else Status(found)

    async def ran_whole(self, rule: str, since: datetime) -> bool:
        """Whether all that the rule wants was run over by one that began after `since` and went well."""
        column = executions.c
        ran = (column.rule == rule) & (column.start_time > since) & (column.status == Status.SUCCEED.value)
        wanted = select(exists().where(ran, column.is_whole == 1))
        return bool(await self._database.run(lambda connection: connection.execute(wanted).scalar()))

    async def page(
        self, equal: Mapping[str, str], limit: int, after: Position | None
    ) -> Sequence[dict[str, Any]]:
        """Newest first, `limit` of those with these values of columns."""
        column = executions.c
        wanted = select(executions).order_by(column.start_time.desc(), column.id.desc()).limit(limit)
        for name, value in equal.items():
            wanted = wanted.where(column[name] == value)
        if after is not None:
            here = tuple_(literal(after.time, Moment), literal(after.task_id))
            wanted = wanted.where(tuple_(column.start_time, column.id) < here)
        return await self._database.run(lambda connection: _shown(connection, wanted))


def _take(connection: Connection, commands: Iterable[Command]) -> None:
    for command in commands:
        here = executions.c.id == command.execution_id
        if isinstance(command, ExecutionStart):
            if connection.execute(select(executions.c.id).where(here)).first() is None:
                connection.execute(insert(executions).values(_row_of(command)))
        elif isinstance(command, ExecutionStop):
            connection.execute(update(executions).where(here).values(stopping=1))
        else:
            values = {"total": command.total, **_error(command.error)}
            connection.execute(update(executions).where(here, executions.c.total.is_(None)).values(values))


def _row_of(start: ExecutionStart) -> dict[str, Any]:
    return {
        "id": start.execution_id,
        "rule": str(start.rule),
        "source": str(start.source),
        "region": str(start.region),
        "trigger": start.trigger,
        "repository": start.repository,
        "tag": start.tag,
        "dry_run": int(start.dry_run),
        "operation": start.operation,
        "is_whole": int(start.is_whole),
        "status": Status.IN_PROGRESS.value,
        "stopping": 0,
        "start_time": start.time,
        "destination": start.destination,
        "rules_rev": start.rules_rev,
    }


def _settle(connection: Connection, rules: Mapping[str, Standing], now: datetime) -> bool:
    running = executions.c.status == Status.IN_PROGRESS.value
    has_ended = False
    for found in connection.execute(select(executions).where(running)).mappings().all():
        row = dict(found)
        if row["total"] is not None and _number_ended(connection, row["id"]) >= row["total"]:
            _end(connection, row["id"], _final(row, _counts(connection, row["id"])), now, {})
        elif not _stands(row, rules.get(row["rule"])):
            gone = TaskError(
                code="rule_gone",
                side=Side.MESH,
                message="its rule was declared no more, or has another source or destination",
            )
            _end(connection, row["id"], Status.STOPPED, now, _error(gone))
        else:
            continue
        has_ended = True
    return has_ended


def _stands(row: Row, rule: Standing | None) -> bool:
    """Whether the rule is still the one that was asked for; older commands do not tell all of it."""
    if rule is None or rule.source != row["source"]:
        return False
    if row["destination"] not in (None, rule.destination):
        return False
    return row["rules_rev"] is None or rule.removed_at <= row["rules_rev"]


def _final(row: Row, counts: Mapping[str, int]) -> Status:
    if row["stopping"] or counts[Status.STOPPED]:
        return Status.STOPPED
    return Status.FAILED if row["error_code"] or counts[Status.FAILED] else Status.SUCCEED


def _end(
    connection: Connection, execution_id: str, status: Status, now: datetime, more: dict[str, Any]
) -> None:
    values = {"status": status.value, "end_time": now, **more}
    connection.execute(update(executions).where(executions.c.id == execution_id).values(values))


def _shown(connection: Connection, wanted: Select[Any]) -> list[dict[str, Any]]:
    rows = [dict(row) for row in connection.execute(wanted).mappings().all()]
    return [_as_json(row, _counts(connection, row["id"])) for row in rows]


def _as_json(row: Row, counts: Mapping[str, int]) -> dict[str, Any]:
    shown = {field: rfc3339(row[field]) for field in _SHOWN} | {"dry_run": bool(row["dry_run"])}
    shown |= {status.value.lower(): counts[status] for status in _ENDS}
    is_running = row["status"] == Status.IN_PROGRESS.value and row["total"] is not None
    shown["in_progress"] = max(0, row["total"] - _ended(counts)) if is_running else 0
    shown |= {name: counts[name] for name in ("refused", *_SUMS)}
    error = {part: row[f"error_{part}"] for part in ("code", "side", "message")}
    return {**shown, "error": error if error["code"] is not None else None}


def _number_ended(connection: Connection, execution_id: str) -> int:
    """From the index alone: this is asked again and again while an execution of any size runs."""
    wanted = select(func.count()).select_from(sync_log).where(sync_log.c.execution_id == execution_id)
    return int(connection.execute(wanted).scalar_one())


def _counts(connection: Connection, execution_id: str) -> dict[str, int]:
    """Tasks by status, of the skipped ones those that were `refused`, and the sums of their bytes."""
    kind = sync_log.c.status, sync_log.c.error_code
    columns = (*kind, func.count(), *(func.sum(sync_log.c[name]) for name in _SUMS))
    found = connection.execute(
        select(*columns).where(sync_log.c.execution_id == execution_id).group_by(*kind)
    )  # as they lie in an index: the tasks themselves are not read
    counts = dict.fromkeys((*(status.value for status in _ENDS), "refused", *_SUMS), 0)
    for status, code, number, *sums in found:
        counts[status] += number
        counts["refused"] += number if code in REFUSAL_CODES else 0
        for name, amount in zip(_SUMS, sums, strict=True):
            counts[name] += int(amount)
    return counts


def _ended(counts: Mapping[str, int]) -> int:
    return sum(counts[status] for status in _ENDS)


def _error(error: TaskError | None) -> dict[str, Any]:
    if error is None:
        return {}
    return {"error_code": error.code, "error_side": error.side.value, "error_message": error.message}
