"""Which parked tasks are due, without a look at those that are not. Pure: the time is an argument."""

import heapq
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple, Protocol

from schemas.names import PlaceName


class Waiting(Protocol):
    """What the queue takes: a parked task, or its summary."""

    @property
    def task_id(self) -> str:
        """The key."""
        ...

    @property
    def not_before(self) -> datetime:
        """When it is due."""
        ...

    @property
    def destination_place(self) -> PlaceName:
        """Where it writes."""
        ...

    @property
    def agent(self) -> str:
        """The agent that parked it."""
        ...


class Owner(NamedTuple):
    """Whose tasks: those that one agent parked for one destination."""

    destination: PlaceName
    agent: str


class DueQueue:
    """Keys of parked tasks by the time at which they are due."""

    def __init__(self) -> None:
        self._heap: list[
            tuple[datetime, str]
        ] = []  # with entries that are outdated; `_at` has the valid time
        self._at: dict[str, tuple[datetime, Owner]] = {}
        self._due: dict[Owner, dict[str, None]] = {}  # in the order in which they became due

    def put(self, task: Waiting) -> None:
        """Adds a task, or replaces it."""
        self.remove(task.task_id)
        self._set(task.task_id, task.not_before, Owner(task.destination_place, task.agent))

    def remove(self, key: str) -> None:
        """Removes a task, if it is there."""
        if (found := self._at.pop(key, None)) is None:
            return
        keys = self._due.get(found[1])
        if keys is not None:
            keys.pop(key, None)
            if not keys:
                del self._due[found[1]]

    def bring_forward(self, key: str, at: datetime) -> None:
        """Makes a task due at `at`, if it is not due before."""
        before, owner = self._at[key]
        if at < before:
            self._set(key, at, owner)

    def due(self, now: datetime) -> Iterable[tuple[Owner, Iterator[str]]]:
        """Returns the keys of what is due, those that are due for longest first; the queue may change meanwhile."""
        while self._heap and self._heap[0][0] <= now:
            at, key = heapq.heappop(self._heap)
            found = self._at.get(key)
            if found is not None and found[0] == at:
                self._due.setdefault(found[1], {})[key] = None
        return [(owner, iter(tuple(keys))) for owner, keys in self._due.items()]

    def _set(self, key: str, at: datetime, owner: Owner) -> None:
        self._at[key] = at, owner
        heapq.heappush(self._heap, (at, key))
