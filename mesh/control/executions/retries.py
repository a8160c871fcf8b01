"""Trying again what failed: a new execution of the same rule, over the same tags and nothing else."""

from collections import Counter, defaultdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, Label, exists, func, select

from mesh.control.executions.commands import Commands
from mesh.control.executions.parked import ParkedTasks
from mesh.control.storage.database import Database
from mesh.control.storage.tables import IS_HELD, IS_OTHERS, executions, sync_log
from mesh.errors import InvalidInput, NotDeclared
from mesh.rules.state import MeshState
from mesh.rules.validation import messages
from schemas.completions import Status
from schemas.executions import MAX_IMAGES, ImageName
from schemas.names import PlaceName, Repository, Tag

_AGAIN = (Status.FAILED.value, Status.STOPPED.value)
_HELD = "deletion_held"  # waits for a human, who says yes by trying it again
_OTHERS = "other_content"
_FAILED = sync_log.c.status == Status.FAILED.value
_THERE_OR_GONE = ("already_there", "already_gone")
_FINE = (Status.SUCCEED.value, Status.SKIPPED.value)


class Retries:
    """Every method raises `DatabaseUnavailable` and `LogError`."""

    def __init__(self, database: Database, commands: Commands, state: MeshState, parked: ParkedTasks) -> None:
        self._database, self._commands, self._state, self._parked = database, commands, state, parked

    async def one(self, task_id: str) -> str | None:
        """The id of the new execution; None when no such task has ended. `InvalidInput` when it did not fail."""
        column = sync_log.c
        wanted = select(
            _by(column),
            column.repository,
            column.tag,
            column.digest,
            column.status,
            column.operation,
            column.error_code,
        ).where(column.task_id == task_id)
        row = await self._database.run(lambda connection: connection.execute(wanted).first())
        if row is None:
            return None
        if row.status not in _AGAIN and row.error_code != _HELD:
            raise InvalidInput(f"task {task_id} ended {row.status}: there is nothing to try again")
        if row.rule is not None and row.tag is None and row.operation == "delete":
            images = await self._database.run(lambda connection: _prefetched(connection, row))
        else:
            images = [_image(row)] if row.tag is not None else []
        if row.rule is None or not images:
            raise InvalidInput(f"task {task_id} is of no rule and tag; the next event tries it again")
        return await self._commands.start(
            row.rule, "manual", images=images[:MAX_IMAGES], operation=row.operation
        )

    async def parked(self, rule: PlaceName | None) -> int:
        """Try those now that are parked, of all rules or of one; how many."""
        found = self._parked.of_rule(rule)
        await self._parked.try_now(*found)
        return len(found)

    def check(self, rule: PlaceName | None) -> None:
        """`NotDeclared` when there is no such rule. One that was removed may have left something parked."""
        if rule is not None and self._state.rule(rule) is None:
            raise NotDeclared(messages.unknown_rule(rule, self._state.things()))

    async def open_failures(self) -> dict[str, int]:
        """How many tags of each rule failed and were not made good since."""
        found = await self._database.run(lambda connection: _unsettled(connection, _FAILED, None))
        return dict(Counter(str(row.rule) for row in found))

    async def open_failures_of_replicas(self) -> dict[str, int]:
        """The same of replicas alone: it is asked again and again."""
        ended = _FAILED & sync_log.c.replica.is_not(None)
        found = await self._database.run(lambda connection: _unsettled(connection, ended, None))
        return dict(Counter(str(row.rule) for row in found))

    async def others_content(self) -> dict[str, int]:
        """How many tags of each replica name what its instance does not have, and were left so."""
        found = await self._database.run(
            lambda connection: _unsettled(connection, IS_OTHERS & ~_looked_again(), None, _OTHERS)
        )
        return dict(Counter(str(row.rule) for row in found))

    async def held_deletions(self) -> dict[str, int]:
        """How many deletions of each rule wait for a human."""
        found = await self._database.run(lambda connection: _unsettled(connection, IS_HELD, None))
        return dict(Counter(str(row.rule) for row in found))

    async def failed(self, rule: PlaceName | None) -> list[dict[str, Any]]:
        """One execution for each rule with failures that nothing has made good since; of all rules, or of one."""
        found = await self._database.run(lambda connection: _unsettled(connection, _FAILED, rule))
        images: dict[tuple[str, Any], list[ImageName]] = defaultdict(list)
        for row in found:
            declared = self._state.rule(row.rule)
            if declared is not None and declared.rule.enabled:
                images[row.rule, row.operation].append(_image(row))
        started = []
        for (name, operation), wanted in sorted(images.items()):
            for at in range(0, len(wanted), MAX_IMAGES):
                some = wanted[at : at + MAX_IMAGES]
                execution_id = await self._commands.start(name, "manual", images=some, operation=operation)
                started.append({"id": execution_id, "rule": name, "total": len(some)})
        return started


def _unsettled(
    connection: Connection, ended: ColumnElement[bool], rule: PlaceName | None, code: str = _HELD
) -> list[Any]:
    """Tags whose task `ended` so, and of which nothing has made it good since; of all rules, or of one.

    To be skipped with `code` makes nothing good.
    """
    column, later = sync_log.c, sync_log.alias().c
    by = _by(column)
    same = (_by(later) == by) & (later.repository == column.repository) & (later.tag == column.tag)
    real = later.error_code.is_(None) | later.error_code.not_in(("dry_run", _HELD, code))
    again = (later.operation == column.operation) & later.status.in_(_FINE) & real
    # A deletion that was followed leaves nothing to copy, and a copy nothing to delete.
    done = (later.status == Status.SUCCEED.value) | later.error_code.in_(_THERE_OR_GONE)
    overtaken = (later.operation != column.operation) & done
    made_good = exists().where(same, again | overtaken, later.end_time >= column.end_time)
    wanted = (
        select(by, column.repository, column.tag, column.operation)
        .where(
            ended,
            by.is_not(None),
            column.tag.is_not(None),
            ~made_good,
        )
        .distinct()
        .order_by(by, column.repository, column.tag, column.operation)
    )
    if rule is not None:
        wanted = wanted.where(by == str(rule))
    return list(connection.execute(wanted))


def _prefetched(connection: Connection, deletion: Any) -> list[ImageName]:
    """The tags under which the rule brought a digest, or found it there: by these its deletion is tried again.

    The agent deletes none that the source has.
    """
    column = sync_log.c
    there = (column.status == Status.SUCCEED.value) | (column.error_code == "already_there")
    wanted = (
        select(column.repository, column.tag)
        .where(_by(column) == deletion.rule, column.repository == deletion.repository)
        .where(column.digest == deletion.digest, column.operation == "copy", column.tag.is_not(None), there)
        .distinct()
        .order_by(column.tag)
    )
    return [_image(row) for row in connection.execute(wanted)]


def _looked_again() -> ColumnElement[bool]:
    """Whether a later look through all of it has ended: that one told it anew, if it is still so."""
    look = executions.c
    return exists().where(
        look.rule == sync_log.c.replica, look.is_whole == 1, look.dry_run == 0, look.error_code.is_(None),
        look.status.in_((Status.SUCCEED.value, Status.FAILED.value)), look.start_time > sync_log.c.end_time,
    )  # fmt: skip


def _by(column: Any) -> Label[str]:
    """The rule, or the replica, as `rule`."""
    return func.coalesce(column.rule, column.replica).label("rule")


def _image(row: Any) -> ImageName:
    return ImageName(repository=Repository(row.repository), tag=Tag(row.tag))
