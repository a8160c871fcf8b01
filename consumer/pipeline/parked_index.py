"""The parked tasks of a region, found by id, by target, by execution and by when they are due."""

import zlib
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta

from consumer.pipeline.due_queue import DueQueue, Owner
from consumer.task import Target, target_of
from mesh.errors import Throttled
from mesh.rules.stops import Stops
from schemas.completions import Side
from schemas.names import PlaceName
from schemas.parked import Parked

_SPREAD_SECONDS = 3.0  # over which the tasks of a registry that came back become due


class ParkedIndex:
    """What a region's agents parked, as the log says."""

    def __init__(self) -> None:
        self._parked: dict[str, Parked] = {}
        self._by_target: dict[Target, dict[str, Parked]] = {}  # every end of a task looks here
        self._by_execution: dict[str, set[str]] = {}
        self._queue = DueQueue()

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._parked

    def __iter__(self) -> Iterator[Parked]:
        return iter(self._parked.values())

    def get(self, task_id: str) -> Parked | None:
        """Returns a task by its id."""
        return self._parked.get(task_id)

    def of_target(self, target: Target) -> Collection[Parked]:
        """Returns the tasks that are about one tag of one destination."""
        return list(self._by_target.get(target, {}).values())

    def replace(self, task_id: str, parked: Parked | None) -> Parked | None:
        """Takes the newest record of a task, None when it has ended; returns the one before."""
        before = self._parked.pop(task_id, None)
        if before is not None:
            self._remove(before)
        if parked is not None:
            self._add(parked)
        return before

    def due(self, now: datetime, stopped: Stops) -> Iterable[tuple[Owner, Iterator[str]]]:
        """Returns the ids of what is due, and of what belongs to a stopped execution, by whose they are."""
        for execution_id in [one for one in self._by_execution if one in stopped]:
            for task_id in self._by_execution[execution_id]:
                self._queue.bring_forward(task_id, now)
        return self._queue.due(now)

    def came_back(self, place: PlaceName, now: datetime) -> int:
        """Makes due, spread over a few seconds, what waits for a registry that answers again; returns how much."""
        brought = 0
        for parked in self:
            if parked.not_before > now and _failed_at(parked) == place:
                spread = zlib.crc32(parked.key.encode()) % 1000 / 1000 * _SPREAD_SECONDS
                self._queue.bring_forward(parked.key, now + timedelta(seconds=spread))
                brought += 1
        return brought

    def _add(self, parked: Parked) -> None:
        self._parked[parked.key] = parked
        self._by_target.setdefault(_target_of(parked), {})[parked.key] = parked
        self._queue.put(parked)
        if parked.execution_id is not None:
            self._by_execution.setdefault(parked.execution_id, set()).add(parked.key)

    def _remove(self, parked: Parked) -> None:
        target = _target_of(parked)
        del self._by_target[target][parked.key]
        if not self._by_target[target]:
            del self._by_target[target]
        self._queue.remove(parked.key)
        if parked.execution_id is not None:
            self._by_execution[parked.execution_id].discard(parked.key)
            if not self._by_execution[parked.execution_id]:
                del self._by_execution[parked.execution_id]


def _failed_at(parked: Parked) -> PlaceName | None:
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
