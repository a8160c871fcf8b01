"""Which rule owns a destination's tag: where several rules lead to one name, the first that wrote the tag keeps it.

The owners are read from this region's completions, for those destinations only where that can happen, into a temporary
SQLite file, so that memory stays bounded whatever the number of tags.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial

from consumer.ports import AgentPorts
from consumer.task import ALREADY_THERE, OWNED, Task
from mesh.concurrency import KeyedLock
from mesh.log.port import Record
from mesh.log.table import Table
from mesh.rules import consent, naming
from mesh.rules.state import MeshState
from mesh.rules.validation import conflicts
from schemas import codec, topics
from schemas.completions import Completion, Side, Status, TaskError
from schemas.names import PlaceName, Repository, Tag
from schemas.rules import Rule

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -1024;
CREATE TABLE owners (
    place TEXT, repository TEXT, tag TEXT, source TEXT, source_repository TEXT, PRIMARY KEY (place, repository, tag)
    ) WITHOUT ROWID;
"""
_WROTE = "INSERT OR REPLACE INTO owners VALUES (?, ?, ?, ?, ?)"
_FOUND = "INSERT OR IGNORE INTO owners VALUES (?, ?, ?, ?, ?)"
_RELEASED = "DELETE FROM owners WHERE place = ? AND repository = ? AND tag = ?"


class TagOwners:
    """The owners of contested tags. While `run` runs, it follows the completions of each contested destination."""

    def __init__(self, ports: AgentPorts, unreadable: Callable[[Record, str], Awaitable[None]]) -> None:
        self._ports, self._state, self._unreadable = ports, ports.state, unreadable
        self._routes = _Routes(ports.state)
        self._tables: dict[PlaceName, Table] = {}
        self._new: asyncio.Queue[Table] = asyncio.Queue()
        self._locks = KeyedLock[tuple[str, str, str]]()
        self._rows = sqlite3.connect("", isolation_level=None)  # a temporary file, deleted when it is closed
        self._rows.executescript(_SCHEMA)

    async def run(self) -> None:
        """Follows completions until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                table = await self._new.get()
                group.create_task(table.run(), name=f"owners {table.topic}")

    async def close(self) -> None:
        """Deletes the temporary file, after the last task."""
        self._rows.close()

    async def refusal(self, task: Task) -> TaskError | None:
        """Returns why the tag is another rule's, or None when the task may write it.

        Raises:
            LogUnavailable: The completions cannot be read now.
        """
        if not self._is_contested(task):
            return None
        await self._table(task.destination.name).caught_up()
        owner = self._rows.execute(
            "SELECT source, source_repository FROM owners WHERE place = ? AND repository = ? AND tag = ?",
            _key(task),
        ).fetchone()
        if owner is None or owner == (task.source.name, task.repository):
            return None
        rule = self._still_leading(task, PlaceName(owner[0]), Repository(owner[1]))
        if rule is None:
            return None
        message = f"{rule.name}: that rule wrote this tag first, from {owner[0]}/{owner[1]}"[:256]
        return TaskError(code=OWNED, side=Side.MESH, message=message)

    @asynccontextmanager
    async def lock(self, task: Task) -> AsyncIterator[None]:
        """Lets one of the agent's tasks at a time work on a contested tag, until the task's end is on the log."""
        if not self._is_contested(task):
            yield
            return
        async with self._locks.hold(_key(task)):
            yield

    def _is_contested(self, task: Task) -> bool:
        """Whether several rules lead to the tag. Tags of referrers name a digest, so any rule writes the same there."""
        return not task.is_referrer and conflicts.is_contested(
            self._routes.to(task.destination.name), task.destination_repository
        )

    def _table(self, place: PlaceName) -> Table:
        if place not in self._tables:
            self._tables[place] = self._ports.table(
                topics.completions(self._ports.region), partial(self._apply, place), self._unreadable
            )
            self._new.put_nowait(self._tables[place])
        return self._tables[place]

    def _apply(self, place: PlaceName, record: Record) -> None:
        if record.value is None or not record.key.startswith(f"{place}/"):
            return
        end = codec.decode(record.value, Completion)
        if end.tag is None or end.rule is None:
            return
        if end.operation == "delete":
            if end.status is Status.SUCCEED:
                self._rows.execute(_RELEASED, (place, end.destination_repository, end.tag))
            return
        was_there = end.error is not None and end.error.code == ALREADY_THERE
        if end.status is Status.SUCCEED or was_there:
            row = (place, end.destination_repository, end.tag, end.source_place, end.repository)
            self._rows.execute(_FOUND if was_there else _WROTE, row)

    def _still_leading(self, task: Task, source: PlaceName, repository: Repository) -> Rule | None:
        """A rule by which the tag's owner may still write it; without one the tag is free."""
        tag = Tag(str(task.tag))
        for compiled in self._state.candidate_rules(source, repository, tag):
            rule = compiled.rule
            if rule.destination == task.destination.name and compiled.wants(repository, tag):
                try:
                    name = naming.destination_of(rule, repository)
                except naming.Unmappable:
                    continue
                if name == task.destination_repository and self._is_granted(source, task):
                    return rule
        return None

    def _is_granted(self, source: PlaceName, task: Task) -> bool:
        owner = self._state.place(source)
        if owner is None:
            return False
        grant = self._state.get(consent.key_of(task.destination.account, owner.account))
        return consent.refusal(owner, task.destination, task.destination_repository, grant) is None


class _Routes:
    """The routes of enabled rules to each destination, gathered again after each change of the declared state."""

    def __init__(self, state: MeshState) -> None:
        self._state = state
        self._changes = -1
        self._to: dict[str, set[conflicts.Route]] = {}

    def to(self, destination: PlaceName) -> Collection[conflicts.Route]:
        """Returns the routes to a destination."""
        if self._changes != self._state.changes:
            self._changes, self._to = self._state.changes, {}
            for rule in self._state.rules():
                if rule.enabled:
                    self._to.setdefault(rule.destination, set()).add(conflicts.route_of(rule))
        return self._to.get(destination, ())


def _key(task: Task) -> tuple[str, str, str]:
    return (task.destination.name, task.destination_repository, str(task.reference))
