"""Retries failed tasks by a new execution of their rule over exactly their tags, and counts what is still failed."""

from collections import Counter, defaultdict
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Label, exists, func, select

from mesh.control.executions.commands import Commands
from mesh.control.storage.database import Database
from mesh.control.storage.tables import IS_FOREIGN, IS_HELD, executions, sync_log
from mesh.errors import InvalidInput, NotDeclared
from mesh.rules.state import MeshState
from mesh.rules.validation import messages
from schemas.completions import Status
from schemas.executions import MAX_IMAGES, ImageName
from schemas.names import PlaceName, Repository, Tag

_RETRIED = (Status.FAILED.value, Status.STOPPED.value)
_HELD = "deletion_held"  # waits for a human, who approves it by a retry
_FOREIGN = "other_content"
_FAILED = sync_log.c.status == Status.FAILED.value
_ALREADY_DONE = ("already_there", "already_gone")
_FINE = (Status.SUCCEED.value, Status.SKIPPED.value)


class Retries:
    """Every method but `check_rule` raises `DatabaseUnavailable`; those that start an execution raise `LogError`."""

    def __init__(self, database: Database, commands: Commands, state: MeshState) -> None:
        self._database, self._commands, self._state = database, commands, state

    async def retry_task(self, task_id: str) -> str | None:
        """Returns the id of the execution that retries the task; None when no such task has ended.

        Raises:
            InvalidInput: The task did not fail, or has no tag to retry.
        """
        wanted = select(sync_log, _rule_of(sync_log.c, "by")).where(sync_log.c.task_id == task_id)
        row = await self._database.run(lambda connection: connection.execute(wanted).first())
        if row is None:
            return None
        if row.status not in _RETRIED and row.error_code != _HELD:
            raise InvalidInput(f"task {task_id} ended {row.status}: there is nothing to retry")
        if row.tag is not None:
            images = [_image(row)]
        elif row.operation == "delete" and row.by is not None:
            images = await self._database.run(partial(_tags_of_digest, deletion=row))
        else:
            images = []
        if row.by is None or not images:
            raise InvalidInput(
                f"task {task_id} has no rule or no tag, so it cannot be retried; "
                "the next event of its image copies it"
            )
        return await self._commands.start(
            row.by, "manual", images=images[:MAX_IMAGES], operation=row.operation
        )

    async def retry_failed(self, rule: PlaceName | None) -> list[dict[str, Any]]:
        """Starts one execution for each rule with failures that were not repaired since; of one rule, or of all.

        Returns:
            For each execution its `id`, the `rule`, and `total`, the number of its tags.
        """
        found = await self._database.run(partial(_unrepaired, ended=_FAILED, rule=rule))
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

    def check_rule(self, rule: PlaceName | None) -> None:
        """Checks that a rule exists. Call it when there is nothing to retry: a deleted rule may have parked tasks.

        Raises:
            NotDeclared: There is no such rule.
        """
        if rule is not None and self._state.rule(rule) is None:
            raise NotDeclared(messages.unknown_rule(rule, self._state.things()))

    async def open_failures(self) -> dict[str, int]:
        """Returns, by rule, how many tags failed and were not repaired since."""
        return await self._count_by_rule(_FAILED)

    async def open_failures_of_replicas(self) -> dict[str, int]:
        """Returns the same of replicas alone, which is fast enough to be asked repeatedly."""
        return await self._count_by_rule(_FAILED & sync_log.c.replica.is_not(None))

    async def foreign_content(self) -> dict[str, int]:
        """Returns, by replica, how many tags have content that its instance does not have, and were left alone."""
        return await self._count_by_rule(IS_FOREIGN & ~_was_compared_since(), _FOREIGN)

    async def held_deletions(self) -> dict[str, int]:
        """Returns, by rule, how many deletions wait for a human."""
        return await self._count_by_rule(IS_HELD)

    async def _count_by_rule(self, ended: ColumnElement[bool], code: str = _HELD) -> dict[str, int]:
        found = await self._database.run(partial(_unrepaired, ended=ended, code=code))
        return dict(Counter(str(row.rule) for row in found))


def _unrepaired(
    connection: Connection, ended: ColumnElement[bool], rule: PlaceName | None = None, code: str = _HELD
) -> list[Any]:
    """Returns the tags with a task that `ended` so and that no later task repaired; of one rule, or of all.

    A task that was skipped with `code` repairs nothing.
    """
    column, later = sync_log.c, sync_log.alias().c
    by = _rule_of(column)
    same = (_rule_of(later) == by) & (later.repository == column.repository) & (later.tag == column.tag)
    real = later.error_code.is_(None) | later.error_code.not_in(("dry_run", _HELD, code))
    repeated = (later.operation == column.operation) & later.status.in_(_FINE) & real
    # After a deletion there is nothing to copy, and after a copy nothing to delete.
    done = (later.status == Status.SUCCEED.value) | later.error_code.in_(_ALREADY_DONE)
    overtaken = (later.operation != column.operation) & done
    repaired = exists().where(same, repeated | overtaken, later.end_time >= column.end_time)
    order = (by, column.repository, column.tag, column.operation)
    wanted = select(*order).where(ended, by.is_not(None), column.tag.is_not(None), ~repaired)
    wanted = wanted.distinct().order_by(*order)
    if rule is not None:
        wanted = wanted.where(by == str(rule))
    return list(connection.execute(wanted))


def _tags_of_digest(connection: Connection, deletion: Any) -> list[ImageName]:
    """Returns the tags under which the rule copied a digest or found it, so that its deletion is retried by tags.

    The agent deletes none that the source still has.
    """
    column = sync_log.c
    there = (column.status == Status.SUCCEED.value) | (column.error_code == "already_there")
    wanted = (
        select(column.repository, column.tag)
        .where(_rule_of(column) == deletion.by, column.repository == deletion.repository)
        .where(column.digest == deletion.digest, column.operation == "copy", column.tag.is_not(None), there)
        .distinct()
        .order_by(column.tag)
    )
    return [_image(row) for row in connection.execute(wanted)]


def _was_compared_since() -> ColumnElement[bool]:
    """Returns the condition that a later execution over the whole replica ended; it reported again what remains."""
    run = executions.c
    return exists().where(
        run.rule == sync_log.c.replica, run.is_whole == 1, run.dry_run == 0, run.error_code.is_(None),
        run.status.in_((Status.SUCCEED.value, Status.FAILED.value)), run.start_time > sync_log.c.end_time,
    )  # fmt: skip


def _rule_of(column: Any, label: str = "rule") -> Label[str]:
    """Returns the rule or the replica of an entry."""
    return func.coalesce(column.rule, column.replica).label(label)


def _image(row: Any) -> ImageName:
    return ImageName(repository=Repository(row.repository), tag=Tag(row.tag))
