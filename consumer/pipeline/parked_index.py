"""The parked tasks of a region, found by id, by target and by when they are due.

A destination that is away for a day may have some hundred thousand, and all agents of its region know them. So a record
is kept as its compressed bytes, with what is asked of many tasks at once beside it: 2.5 KB instead of 11.
"""

import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from consumer.pipeline.due_queue import DueQueue, Owner
from consumer.task import Target, target_of
from mesh.errors import Throttled
from schemas import codec
from schemas.completions import Side
from schemas.names import PlaceName
from schemas.parked import Parked

_SPREAD_SECONDS = 3.0  # over which the tasks of a registry that came back become due


@dataclass(frozen=True, slots=True)
class ParkedSummary:
    """What is asked of many parked tasks at once; the fields are those of `schemas.parked.Parked`.

    `failed_at` is the place whose failure the task waits for, if it waits for one. `is_listed` says that a listing
    found its image.
    """

    task_id: str
    by: PlaceName
    agent: str
    destination_place: PlaceName
    target: Target
    execution_id: str
    occurred_at: datetime
    not_before: datetime
    failed_at: PlaceName | None
    is_look: bool
    is_listed: bool
    packed: bytes

    def unpacked(self) -> Parked:
        """Returns the whole record."""
        return codec.decode(zlib.decompress(self.packed), Parked)


class ParkedIndex:
    """What a region's agents parked, as the log says."""

    def __init__(self) -> None:
        self._parked: dict[str, ParkedSummary] = {}
        self._by_target: dict[Target, set[str]] = {}  # ids; every end of a task looks here
        self._queue = DueQueue()

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._parked

    def __iter__(self) -> Iterator[ParkedSummary]:
        return iter(self._parked.values())

    def get(self, task_id: str) -> Parked | None:
        """Returns a task by its id."""
        found = self._parked.get(task_id)
        return found.unpacked() if found is not None else None

    def of_target(self, target: Target) -> Collection[Parked]:
        """Returns the tasks that are about one tag of one destination."""
        return [self._parked[task_id].unpacked() for task_id in self._by_target.get(target, ())]

    def replace(self, task_id: str, parked: Parked | None) -> ParkedSummary | None:
        """Takes the newest record of a task, None when it has ended; returns the summary of the one before."""
        before = self._parked.pop(task_id, None)
        if before is not None:
            self._remove(before)
        if parked is not None:
            self._add(summary_of(parked))
        return before

    def due(self, now: datetime) -> Iterable[tuple[Owner, Iterator[str]]]:
        """Returns the ids of what is due, by whose they are."""
        return self._queue.due(now)

    def make_due(self, task_id: str, now: datetime) -> None:
        """Makes a task due."""
        self._queue.bring_forward(task_id, now)

    def stop(self, execution_ids: Collection[str], now: datetime) -> None:
        """Makes due what belongs to stopped executions."""
        for parked in self:
            if parked.execution_id in execution_ids:
                self._queue.bring_forward(parked.task_id, now)

    def came_back(self, places: Collection[PlaceName], now: datetime) -> int:
        """Makes due, spread over a few seconds, what waits for registries that answer again; returns how much."""
        count = 0
        for parked in self:
            if parked.not_before > now and parked.failed_at in places:
                spread = zlib.crc32(parked.task_id.encode()) % 1000 / 1000 * _SPREAD_SECONDS
                self._queue.bring_forward(parked.task_id, now + timedelta(seconds=spread))
                count += 1
        return count

    def _add(self, parked: ParkedSummary) -> None:
        self._parked[parked.task_id] = parked
        self._by_target.setdefault(parked.target, set()).add(parked.task_id)
        self._queue.put(parked)

    def _remove(self, parked: ParkedSummary) -> None:
        others = self._by_target[parked.target]
        others.discard(parked.task_id)
        if not others:
            del self._by_target[parked.target]
        self._queue.remove(parked.task_id)


def summary_of(parked: Parked) -> ParkedSummary:
    """Returns the summary of a record."""
    return ParkedSummary(
        task_id=parked.task_id,
        by=parked.by,
        agent=parked.agent,
        destination_place=parked.destination_place,
        target=_target_of(parked),
        execution_id=parked.execution_id,
        occurred_at=parked.event.occurred_at,
        not_before=parked.not_before,
        failed_at=_failed_at(parked),
        is_look=parked.is_look,
        is_listed=parked.event.part_of is not None,
        packed=zlib.compress(codec.encode(parked), 1),
    )


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
