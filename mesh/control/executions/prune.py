"""What replicas hold and their instances do not, though nobody said so: found after a look through a whole replica.

An execution over a whole replica that has ended ends every tag that its instance listed. So what an agent of ours has
seen at the replica before, and this execution has no task of, is not at the instance: its deletion becomes an
execution of its own, whose tasks ask both registries before anything goes. What others put there is not known here.

Read by pages and twice, first to count: how much it is decides whether it may go, and no list of it is kept in memory.
A control that is cut in between begins again, and finds what is left.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

import structlog
from sqlalchemy import Connection, select, tuple_, update

from mesh.clock import Clock
from mesh.control.executions.commands import Commands
from mesh.control.patience import Patience
from mesh.control.storage.database import Database
from mesh.control.storage.tables import executions, images, sync_log
from mesh.control.sync_log.entry import Row
from mesh.errors import InvalidInput
from mesh.rules.state import MeshState
from schemas.completions import Status, task_id_of
from schemas.envelope import make_id
from schemas.events import Cause, OrphanedTagCount
from schemas.executions import MAX_IMAGES, ImageName
from schemas.names import Digest, Repository, Tag

LOG = structlog.get_logger()

_LOOK_EVERY = 1.0  # seconds
_LOOK_BACK = timedelta(days=7)  # an execution may run for a day after its listing, and control may be away
_PAGE = 500  # tags in one statement
_ENDED = (Status.SUCCEED.value, Status.FAILED.value)  # a task that failed was listed all the same


class Position(NamedTuple):
    """Up to where the tags of a replica were read, by name."""

    repository: str = ""
    tag: str = ""


class OrphanedTags:
    """`run` until cancelled; `look` raises `DatabaseUnavailable` and `LogError`."""

    def __init__(
        self,
        database: Database,
        commands: Commands,
        *,
        state: MeshState,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self._database, self._commands, self._state = database, commands, state
        self._clock, self._random = clock, random

    async def run(self) -> None:
        """For ever, while the log and the database come and go."""
        await Patience("surplus", self._clock, self._random).repeat(self.look, _LOOK_EVERY)

    async def look(self) -> None:
        """Compare every replica that was looked through since."""
        sources = {str(rule.name): str(rule.source) for rule in self._state.replica_rules()}
        since = self._clock.now() - _LOOK_BACK
        for row in await self._database.run(partial(_not_compared, replicas=sorted(sources), since=since)):
            if sources[row["rule"]] == row["source"]:
                await self._compare(row)

    async def _compare(self, row: Row) -> None:
        tags = sum([len(page) async for page in self._pages(row)])
        if tags:
            await self._start(row, OrphanedTagCount(tags=tags, of=tags + row["total"]))
        here = executions.c.id == row["id"]
        await self._database.run(
            lambda connection: connection.execute(update(executions).where(here).values(surplus=tags))
        )
        LOG.info(
            "a replica was compared", action="replica_compared", replica=row["rule"], execution=row["id"],
            listed=row["total"], surplus=tags,
        )  # fmt: skip

    async def _start(self, row: Row, surplus: OrphanedTagCount) -> None:
        waiting = list[ImageName]()
        async for page in self._pages(row):
            waiting += page
            while len(waiting) >= MAX_IMAGES:
                await self._delete(row, waiting[:MAX_IMAGES], surplus)
                waiting = waiting[MAX_IMAGES:]
        if waiting:
            await self._delete(row, waiting, surplus)

    async def _delete(self, row: Row, some: Sequence[ImageName], surplus: OrphanedTagCount) -> None:
        names = (f"{image.repository}:{image.tag}" for image in some)
        execution_id = make_id("surplus", row["id"], *names)
        try:
            await self._commands.start(
                row["rule"], "reconcile", execution_id=execution_id, images=some, operation="delete", surplus=surplus
            )  # fmt: skip
        except InvalidInput as error:  # it is not declared any more since a moment ago
            LOG.warning(
                "an execution was not started", action="not_started", rule=row["rule"], error=str(error)
            )

    async def _pages(self, row: Row) -> AsyncIterator[Sequence[ImageName]]:
        """What is surplus, by name."""
        after: Position | None = Position()
        while after is not None:
            found, after = await self._database.run(partial(_page, row=row, after=after))
            yield found


def _not_compared(connection: Connection, replicas: Sequence[str], since: datetime) -> Sequence[Row]:
    """Executions over a whole replica that listed all, have ended and were not stopped."""
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


def _page(connection: Connection, row: Row, after: Position) -> tuple[Sequence[ImageName], Position | None]:
    """Of the next tags that the replica held when the execution began, those without a task; and how to go on."""
    held = _held(connection, row, after)
    ids = [task_id_of(row["id"], row["rule"], one.repository, one.tag) for one in held]
    listed = set(connection.execute(select(sync_log.c.task_id).where(sync_log.c.task_id.in_(ids))).scalars())
    found = [
        ImageName(repository=Repository(one.repository), tag=Tag(one.tag), digest=Digest(one.digest))
        for one, task_id in zip(held, ids, strict=True)
        if task_id not in listed
    ]
    return found, Position(held[-1].repository, held[-1].tag) if len(held) == _PAGE else None


def _held(connection: Connection, row: Row, after: Position) -> Sequence[Any]:
    column = images.c
    wanted = select(column.repository, column.tag, column.digest).where(
        column.place == row["rule"],
        column.digest.is_not(None),
        column.written_by == Cause.ARRIVAL.value,
        column.since < row["start_time"],
        tuple_(column.repository, column.tag) > tuple_(*after),
    )
    return connection.execute(wanted.order_by(column.repository, column.tag).limit(_PAGE)).all()
