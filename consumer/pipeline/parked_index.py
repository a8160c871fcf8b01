"""The parked tasks of a region, found by id, by target and by when they are due."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from consumer.task import Target, target_of
from mesh.errors import Throttled
from mesh.parked_store import ParkedStore, microseconds, time_of
from schemas.completions import Side
from schemas.names import PlaceName
from schemas.parked import Parked

_SPREAD = timedelta(seconds=3)  # over which the tasks of a registry that came back become due
_PAGE = 100  # tasks that are read at once
_CHUNK = 1000  # tasks that are changed in one turn of the loop


def _joined(target: Target) -> str:
    return "\n".join(target)


def _failed_at(parked: Parked) -> str | None:
    """Returns the place whose failure the task waits for; not one that asked to be left alone for a while."""
    if parked.is_active or parked.is_look or parked.error.code == Throttled.code:
        return None
    places = {Side.SOURCE: parked.event.place, Side.DESTINATION: parked.destination_place}
    return places.get(parked.error.side)


def _target_of(parked: Parked) -> Target:
    return target_of(
        parked.by, parked.destination_place, parked.repository, parked.destination_repository,
        str(parked.tag or parked.event.digest),
    )  # fmt: skip


_COLUMNS = {
    "agent": lambda it: str(it.agent),
    "destination": lambda it: str(it.destination_place),
    "by_rule": lambda it: str(it.by),
    "target": lambda it: _joined(_target_of(it)),
    "execution": lambda it: str(it.execution_id),
    "failed_at": _failed_at,
    "is_look": lambda it: int(it.is_look),
    "is_listed": lambda it: int(it.event.part_of is not None),
    "occurred_at": lambda it: microseconds(it.event.occurred_at),
    "due_at": lambda it: microseconds(it.not_before),
}
_INDEXES = (
    "agent, destination, due_at, task_id", "target", "execution", "failed_at, due_at",
    "is_look, agent, destination, by_rule, is_listed, occurred_at",
)  # fmt: skip


class Owner(NamedTuple):
    """Whose tasks: those that one agent parked for one destination."""

    destination: PlaceName
    agent: str


class ParkedCount(NamedTuple):
    """How many tasks of one destination and rule an agent parked, and when the oldest of their events happened.

    `is_listed` says that listings found their images.
    """

    destination: PlaceName
    by: PlaceName
    is_listed: bool
    tasks: int
    oldest: datetime


class ParkedIndex:
    """What a region's agents parked, as the log says. Methods raise `LogUnavailable` as those of `ParkedStore`."""

    def __init__(self) -> None:
        self._store = ParkedStore(_COLUMNS, _INDEXES)
        self._owners = Counter[Owner]()  # the number of their tasks

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._store

    def get(self, task_id: str) -> Parked | None:
        """Returns a task by its id."""
        return self._store.get(task_id)

    def agent_of(self, task_id: str) -> str | None:
        """Returns the agent that parked a task; None when it is not parked, or only a look at a tag."""
        found = self._store.rows("SELECT agent FROM parked WHERE task_id = ? AND is_look = 0", task_id)
        return found[0][0] if found else None

    def of_target(self, target: Target) -> Collection[Parked]:
        """Returns the tasks that are about one tag of one destination."""
        return list(self._store.records("WHERE target = ?", _joined(target)))

    def replace(self, task_id: str, parked: Parked | None) -> Parked | None:
        """Takes the newest record of a task, None when it has ended; returns the one before."""
        before = self._store.get(task_id)
        self._store.replace(task_id, parked)
        if before is not None:
            owner = _owner_of(before)
            self._owners[owner] -= 1
            if not self._owners[owner]:
                del self._owners[owner]
        if parked is not None:
            self._owners[_owner_of(parked)] += 1
        return before

    def agents(self) -> set[str]:
        """Returns the agents that parked something."""
        return {owner.agent for owner in self._owners}

    def counts(self, agents: Iterable[str]) -> list[ParkedCount]:
        """Returns how many tasks some agents parked, without looks at tags."""
        statement = (
            "SELECT destination, by_rule, is_listed, count(*), min(occurred_at) FROM parked "
            "WHERE is_look = 0 AND agent = ? GROUP BY destination, by_rule, is_listed"
        )
        return [
            ParkedCount(PlaceName(place), PlaceName(rule), bool(is_listed), tasks, time_of(oldest))
            for agent in agents
            for place, rule, is_listed, tasks, oldest in self._store.rows(statement, agent)
        ]

    def due(self, now: datetime) -> Iterable[tuple[Owner, Iterator[str]]]:
        """Returns the ids of what is due, by whose they are, those that are due for longest first.

        The tasks may change meanwhile.
        """
        return [(owner, self._due_of(owner, microseconds(now))) for owner in self._owners]

    def make_due(self, task_id: str, now: datetime) -> None:
        """Makes a task due."""
        at = microseconds(now)
        self._store.change("UPDATE parked SET due_at = ? WHERE task_id = ? AND due_at > ?", at, task_id, at)

    def stop(self, execution_ids: Iterable[str], now: datetime) -> None:
        """Makes due what belongs to stopped executions."""
        at = microseconds(now)
        for one in execution_ids:
            self._store.change("UPDATE parked SET due_at = ? WHERE execution = ? AND due_at > ?", at, one, at)

    async def came_back(self, places: Collection[PlaceName], now: datetime) -> int:
        """Makes due, spread over a few seconds, what waits for registries that answer again; returns how much."""
        count, start, latest = 0, microseconds(now), microseconds(now + _SPREAD)
        statement = (
            "UPDATE parked SET due_at = ? + rowid % 1000 * ? WHERE rowid IN "
            "(SELECT rowid FROM parked WHERE failed_at = ? AND due_at > ? LIMIT ?)"
        )
        for place in places:
            # What is due after the spread gets a time within it, so that it is found only once.
            while changed := self._store.change(
                statement, start, (latest - start) // 1000, place, latest, _CHUNK
            ):
                count += changed
                await asyncio.sleep(0)
        return count

    def _due_of(self, owner: Owner, now: int) -> Iterator[str]:
        last, statement = (
            (0, ""),
            (
                "SELECT due_at, task_id FROM parked WHERE agent = ? AND destination = ? AND due_at <= ? "
                "AND (due_at, task_id) > (?, ?) ORDER BY due_at, task_id LIMIT ?"
            ),
        )
        while page := self._store.rows(statement, owner.agent, owner.destination, now, *last, _PAGE):
            for last in page:
                yield last[1]


def _owner_of(parked: Parked) -> Owner:
    return Owner(parked.destination_place, parked.agent)
