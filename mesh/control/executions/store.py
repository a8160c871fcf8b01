"""Executions in the database: what was asked for, how much was listed, and how it ended.

Fed from `mesh.commands`; the outcome of the tasks is counted from the sync log. Every step may be repeated.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, exists, func, insert, select, update

from mesh.control.executions.returns import WholeListing
from mesh.control.storage import paging
from mesh.control.storage.database import Database
from mesh.control.storage.paging import Page, Position
from mesh.control.storage.tables import executions, sync_log
from mesh.control.sync_log.entry import Row, error_columns, error_of, rfc3339
from schemas.completions import REFUSAL_CODES, Side, Status, TaskError
from schemas.envelope import make_id
from schemas.executions import ExecutionListed, ExecutionStart, ExecutionStop

Command = ExecutionStart | ExecutionListed | ExecutionStop

_OF_NEW = ("baseline", "compare")
_ENDS = (Status.SUCCEED, Status.FAILED, Status.SKIPPED, Status.STOPPED)
_SUMS = ("bytes_total", "bytes_transferred", "bytes_skipped")
_SHOWN = (
    "id", "rule", "region", "trigger", "repository", "tag", "dry_run", "operation", "status", "start_time", "end_time",
    "total", "surplus",
)  # fmt: skip


def backfill_id(rule: str, rev: int) -> str:
    """Returns the id of the backfill of a rule or replica as it was declared by revision `rev`."""
    return make_id("execution", rule, "backfill", rev)


class RuleIdentity(NamedTuple):
    """What makes a declared rule the same rule: its ends, and the last revision that removed it (-1: none known)."""

    source: str
    destination: str
    removed_at: int


class Executions:
    """Every method raises `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, commands: Sequence[Command]) -> None:
        """Stores records of `mesh.commands`, in their order."""
        await self._database.run(lambda connection: _take(connection, commands))

    async def running_rules(self) -> Collection[str]:
        """Returns the names of the rules with an execution in progress."""
        wanted = select(executions.c.rule).where(executions.c.status == Status.IN_PROGRESS.value).distinct()
        return await self._database.run(lambda connection: connection.execute(wanted).scalars().all())

    async def settle(self, rules: Mapping[str, RuleIdentity | None], now: datetime) -> bool:
        """Ends executions whose tasks have all ended, and those whose rule was removed or replaced.

        A rule with another source or destination is another rule, and so is one that was removed in between and
        declared again: agents ignored the events that they read meanwhile, so nobody ends those tasks.

        Args:
            rules: By name, the declared rules, and None for those that are not; executions of others are left alone.
            now: The end time of what ends.

        Returns:
            Whether any execution ended.
        """
        return await self._database.run(lambda connection: _settle(connection, rules, now))

    async def get(self, execution_id: str) -> dict[str, Any] | None:
        """Returns an execution as the API shows it; None when there is none with this id."""
        wanted = select(executions).where(executions.c.id == execution_id)
        found = await self._database.run(lambda connection: _as_shown(connection, wanted))
        return found[0] if found else None

    async def status(self, execution_id: str) -> Status | None:
        """Returns the status without counting tasks; None when there is no such execution."""
        wanted = select(executions.c.status).where(executions.c.id == execution_id)
        found = await self._database.run(lambda connection: connection.execute(wanted).scalar())
        return None if found is None else Status(found)

    async def start_time(self, execution_id: str) -> datetime | None:
        """Returns when an execution started; None when there is no such execution."""
        wanted = select(executions.c.start_time).where(executions.c.id == execution_id)
        return await self._database.run(lambda connection: connection.execute(wanted).scalar())

    async def whole_listings(self, rule: str, limit: int) -> Sequence[WholeListing]:
        """Returns the last executions that list all that the rule matches, newest first."""
        column = executions.c
        is_whole = (column.trigger == "backfill") | (column.is_whole == 1) | column.operation.in_(_OF_NEW)
        return await self._listings((column.rule == rule) & is_whole, limit)

    async def baselines(self, rule: str, rev: int, limit: int) -> Sequence[WholeListing]:
        """Returns the last executions that noted what the rule's source holds, since revision `rev`, newest first."""
        column = executions.c
        wanted = (column.rule == rule) & (column.operation == "baseline") & (column.rules_rev >= rev)
        return await self._listings(wanted, limit)

    async def count_running(self, operations: Collection[str], since: datetime) -> int:
        """Returns how many executions of some operations started after `since` and are in progress."""
        column = executions.c
        running = (column.status == Status.IN_PROGRESS.value) & (column.start_time > since)
        wanted = select(func.count()).where(running, column.operation.in_(sorted(operations)))
        return int(await self._database.run(lambda connection: connection.execute(wanted).scalar_one()))

    async def _listings(self, which: ColumnElement[bool], limit: int) -> Sequence[WholeListing]:
        column = executions.c
        columns = (column.start_time, column.total, column.error_code, column.status)
        wanted = select(*columns).where(which).order_by(column.start_time.desc()).limit(limit)
        found = await self._database.run(lambda connection: connection.execute(wanted).all())
        return [
            WholeListing(row.start_time, row.total is not None, row.error_code, Status(row.status))
            for row in found
        ]

    async def ran_whole(self, rule: str, since: datetime) -> bool:
        """Checks whether an execution over all that the rule matches started after `since` and succeeded."""
        column = executions.c
        ran = (column.rule == rule) & (column.start_time > since) & (column.status == Status.SUCCEED.value)
        wanted = select(exists().where(ran, column.is_whole == 1))
        return bool(await self._database.run(lambda connection: connection.execute(wanted).scalar()))

    async def page(
        self, equal: Mapping[str, str], limit: int, after: Position | None
    ) -> Page[dict[str, Any]]:
        """Returns a page of executions as the API shows them, newest first, without those that only note a baseline.

        Args:
            equal: Columns and the values that they must have.
            limit: The size of the page.
            after: Where the last page ended.
        """
        column = executions.c
        wanted = select(executions).order_by(column.start_time.desc(), column.id.desc()).limit(limit + 1)
        wanted = wanted.where(func.coalesce(column.operation, "copy") != "baseline")
        wanted = wanted.where(*(column[name] == value for name, value in equal.items()))
        if after is not None:
            wanted = wanted.where(paging.after(column.start_time, column.id, after))
        rows = await self._database.run(lambda connection: _as_shown(connection, wanted))
        return paging.first_page(rows, limit, _position)


def _position(shown: Mapping[str, Any]) -> Position:
    return Position(datetime.fromisoformat(shown["start_time"]), shown["id"])


def _take(connection: Connection, commands: Iterable[Command]) -> None:
    for command in commands:
        here = executions.c.id == command.execution_id
        if isinstance(command, ExecutionStart):
            if connection.execute(select(executions.c.id).where(here)).first() is None:
                connection.execute(insert(executions).values(_row_of(command)))
        elif isinstance(command, ExecutionStop):
            connection.execute(update(executions).where(here).values(stopping=1))
        else:
            values = {"total": command.total, **error_columns(command.error)}
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


def _settle(connection: Connection, rules: Mapping[str, RuleIdentity | None], now: datetime) -> bool:
    running = executions.c.status == Status.IN_PROGRESS.value
    has_ended = False
    for found in connection.execute(select(executions).where(running)).mappings().all():
        row = dict(found)
        if row["total"] is not None and _count_ended(connection, row["id"]) >= row["total"]:
            _end(connection, row["id"], _final(row, _counts(connection, row["id"])), now, {})
        elif row["rule"] in rules and not _is_same_rule(row, rules[row["rule"]]):
            removed = TaskError(
                code="rule_gone",
                side=Side.MESH,
                message="its rule was deleted, or has another source or destination now",
            )
            _end(connection, row["id"], Status.STOPPED, now, error_columns(removed))
        else:
            continue
        has_ended = True
    return has_ended


def _is_same_rule(row: Row, rule: RuleIdentity | None) -> bool:
    """Checks whether the rule is the one that was started; older commands lack the destination or the revision."""
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


def _as_shown(connection: Connection, wanted: Select[Any]) -> list[dict[str, Any]]:
    rows = [dict(row) for row in connection.execute(wanted).mappings().all()]
    return [_as_json(row, _counts(connection, row["id"])) for row in rows]


def _as_json(row: Row, counts: Mapping[str, int]) -> dict[str, Any]:
    shown = {field: rfc3339(row[field]) for field in _SHOWN} | {"dry_run": bool(row["dry_run"])}
    shown |= {status.value.lower(): counts[status] for status in _ENDS}
    is_running = row["status"] == Status.IN_PROGRESS.value and row["total"] is not None
    shown["in_progress"] = max(0, row["total"] - sum(counts[status] for status in _ENDS)) if is_running else 0
    shown |= {name: counts[name] for name in ("refused", *_SUMS)}
    return shown | {"error": error_of(row)}


def _count_ended(connection: Connection, execution_id: str) -> int:
    """Reads only an index, since this runs repeatedly while an execution of any size is in progress."""
    wanted = select(func.count()).select_from(sync_log).where(sync_log.c.execution_id == execution_id)
    return int(connection.execute(wanted).scalar_one())


def _counts(connection: Connection, execution_id: str) -> dict[str, int]:
    """Counts tasks by status and, of the skipped ones, the `refused`; sums up their bytes. Reads only an index."""
    kind = sync_log.c.status, sync_log.c.error_code
    columns = (*kind, func.count(), *(func.sum(sync_log.c[name]) for name in _SUMS))
    found = connection.execute(
        select(*columns).where(sync_log.c.execution_id == execution_id).group_by(*kind)
    )
    counts = dict.fromkeys((*(status.value for status in _ENDS), "refused", *_SUMS), 0)
    for status, code, tasks, *sums in found:
        counts[status] += tasks
        counts["refused"] += tasks if code in REFUSAL_CODES else 0
        for name, amount in zip(_SUMS, sums, strict=True):
            counts[name] += int(amount)
    return counts
