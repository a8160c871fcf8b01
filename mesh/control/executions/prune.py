"""Finds and deletes the orphaned tags of replicas: tags that a replica holds and its instance does not.

Registries may lose the notification of a deletion. But an ended execution over a whole replica has a task for every
tag that the instance listed. So a tag that an agent saw at the replica before, and that has no task in this execution,
is not at the instance. Its deletion becomes an execution of its own, whose tasks ask both registries before they
delete anything. Tags that others wrote to the replica are not known here and stay.

Tags are read by pages, and twice: first to count them, since their share decides whether they may be deleted. So
memory is bounded. A control that stops in between starts again, and finds what is left.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

import structlog
from sqlalchemy import Connection, select, tuple_, update

from mesh.control.executions.commands import Commands
from mesh.control.ports import ControlPorts
from mesh.control.storage.database import Database
from mesh.control.storage.tables import executions, images, sync_log
from mesh.control.sync_log.entry import Row
from mesh.errors import InvalidInput
from schemas.completions import Status, task_id_of
from schemas.envelope import make_id
from schemas.events import Cause, OrphanedTagCount
from schemas.executions import MAX_IMAGES, ImageName
from schemas.names import Digest, Repository, Tag

LOG = structlog.get_logger()

_INTERVAL = 1.0  # seconds
_MAX_AGE = timedelta(days=7)  # an execution may run for a day after its listing, and control may be down
_PAGE = 500  # tags in one statement
_ENDED = (Status.SUCCEED.value, Status.FAILED.value)  # failed tasks were listed all the same


class TagPosition(NamedTuple):
    """The last tag that was read, in the order of names."""

    repository: str = ""
    tag: str = ""


class OrphanedTags:
    """Compares each replica after every execution over the whole of it."""

    def __init__(self, database: Database, commands: Commands, ports: ControlPorts) -> None:
        self._database, self._commands, self._ports = database, commands, ports

    async def run(self) -> None:
        """Compares replicas until cancelled."""
        await self._ports.retry_loop("orphaned_tags").repeat(self.compare_replicas, _INTERVAL)

    async def compare_replicas(self) -> None:
        """Compares the replicas whose executions ended since, and starts the deletion of orphaned tags.

        Raises:
            DatabaseUnavailable: The database does not answer.
            LogError: The log did not accept an execution.
        """
        sources = {str(rule.name): str(rule.source) for rule in self._ports.state.replica_rules()}
        since = self._ports.clock.now() - _MAX_AGE
        for row in await self._database.run(partial(_not_compared, replicas=sorted(sources), since=since)):
            if sources[row["rule"]] == row["source"]:
                await self._compare(row)

    async def _compare(self, row: Row) -> None:
        tags = sum([len(page) async for page in self._orphaned(row)])
        if tags:
            await self._start_deletions(row, OrphanedTagCount(tags=tags, of=tags + row["total"]))
        compared = update(executions).where(executions.c.id == row["id"]).values(surplus=tags)
        await self._database.run(lambda connection: connection.execute(compared))
        LOG.info(
            "a replica was compared", action="replica_compared", replica=row["rule"], execution=row["id"],
            listed=row["total"], orphaned=tags,
        )  # fmt: skip

    async def _start_deletions(self, row: Row, surplus: OrphanedTagCount) -> None:
        waiting = list[ImageName]()
        async for page in self._orphaned(row):
            waiting += page
            while len(waiting) >= MAX_IMAGES:
                await self._start_deletion(row, waiting[:MAX_IMAGES], surplus)
                waiting = waiting[MAX_IMAGES:]
        if waiting:
            await self._start_deletion(row, waiting, surplus)

    async def _start_deletion(self, row: Row, tags: Sequence[ImageName], surplus: OrphanedTagCount) -> None:
        execution_id = make_id("surplus", row["id"], *(f"{image.repository}:{image.tag}" for image in tags))
        try:
            await self._commands.start(
                row["rule"], "reconcile", execution_id=execution_id, images=tags, operation="delete", surplus=surplus
            )  # fmt: skip
        except InvalidInput as error:  # the replica was deleted a moment ago
            LOG.warning(
                "an execution was not started", action="not_started", rule=row["rule"], error=str(error)
            )

    async def _orphaned(self, row: Row) -> AsyncIterator[Sequence[ImageName]]:
        """Yields the orphaned tags by pages, in the order of names."""
        after: TagPosition | None = TagPosition()
        while after is not None:
            found, after = await self._database.run(partial(_orphaned_page, row=row, after=after))
            yield found


def _not_compared(connection: Connection, replicas: Sequence[str], since: datetime) -> Sequence[Row]:
    """Returns ended executions over a whole replica whose listing was complete."""
    column = executions.c
    wanted = select(executions).where(
        column.start_time > since,
        column.rule.in_(replicas),
        column.is_whole == 1,
        column.surplus.is_(None),
        column.status.in_(_ENDED),
        column.error_code.is_(None),
    )
    return [dict(found) for found in connection.execute(wanted).mappings()]


def _orphaned_page(
    connection: Connection, row: Row, after: TagPosition
) -> tuple[Sequence[ImageName], TagPosition | None]:
    """Returns the tags without a task among the next tags of the replica, and where to go on."""
    tags = _tags_before_start(connection, row, after)
    ids = [task_id_of(row["id"], row["rule"], one.repository, one.tag) for one in tags]
    listed = set(connection.execute(select(sync_log.c.task_id).where(sync_log.c.task_id.in_(ids))).scalars())
    orphaned = [
        ImageName(repository=Repository(one.repository), tag=Tag(one.tag), digest=Digest(one.digest))
        for one, task_id in zip(tags, ids, strict=True)
        if task_id not in listed
    ]
    return orphaned, TagPosition(tags[-1].repository, tags[-1].tag) if len(tags) == _PAGE else None


def _tags_before_start(connection: Connection, row: Row, after: TagPosition) -> Sequence[Any]:
    """Returns the next tags that an agent saw at the replica before the execution started."""
    column = images.c
    wanted = select(column.repository, column.tag, column.digest).where(
        column.place == row["rule"],
        column.digest.is_not(None),
        column.written_by == Cause.ARRIVAL.value,
        column.since < row["start_time"],
        tuple_(column.repository, column.tag) > tuple_(*after),
    )
    return connection.execute(wanted.order_by(column.repository, column.tag).limit(_PAGE)).all()
