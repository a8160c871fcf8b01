"""Follows the parked tasks of all regions, counts them, retries them at once, or closes them.

A parked task that an agent is working on has not failed again: it is listed, but not retried.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping

from mesh.concurrency import in_turns
from mesh.control.executions.parked_failures import ParkedFailures
from mesh.control.ports import ControlPorts
from mesh.control.readers.region_tables import RegionTables
from mesh.control.storage.paging import Position
from mesh.log.port import Append, Record
from mesh.parked_store import Column, ParkedStore, microseconds
from schemas import codec, topics
from schemas.completions import Side, Status, TaskError
from schemas.names import PlaceName
from schemas.parked import Parked

_CHUNK = 500  # records of one append
_PAGE = 100  # records that are read at once
_COLUMNS: Mapping[str, Callable[[Parked], Column]] = {
    "by_rule": lambda it: str(it.by),
    "execution": lambda it: str(it.execution_id),
    "is_active": lambda it: int(it.is_active),
    "parked_at": lambda it: microseconds(it.time),
    "not_before": lambda it: microseconds(it.not_before),
    "started": lambda it: microseconds(it.start_time),
    "message": lambda it: it.error.message,
}
_INDEXES = (
    "not_before, task_id", "execution, is_active", "is_active, by_rule, parked_at, message", "started, task_id",
)  # fmt: skip


class ParkedTasks:
    """The parked tasks. Methods raise `LogUnavailable` as those of `ParkedStore`."""

    def __init__(self, ports: ControlPorts) -> None:
        self._log, self._clock = ports.log, ports.clock
        self._regions = RegionTables(
            "parked", topic_of=topics.retry, new_state=lambda: ParkedStore(_COLUMNS, _INDEXES), apply=_apply,
            ports=ports,
        )  # fmt: skip  # an unreadable record goes to the dead-letter queue by the region's agents

    async def run(self) -> None:
        """Follows the topics until cancelled."""
        await self._regions.run()

    def first(self, limit: int) -> list[Parked]:
        """Returns so many parked tasks, the next to be retried first."""
        found = [store.records("ORDER BY not_before, task_id LIMIT ?", limit) for store in self._stores()]
        merged = heapq.merge(*found, key=lambda one: (one.not_before, one.task_id))
        return list(itertools.islice(merged, limit))

    async def newest_first(self, after: Position | None) -> AsyncIterator[Parked]:
        """Yields the parked tasks after a position, or all, by their start and id, while other coroutines run too."""
        found = [_newest_first(store, after) for store in self._stores()]
        merged = heapq.merge(*found, key=lambda one: (one.start_time, one.task_id), reverse=True)
        async for one in in_turns(merged):
            yield one

    def get(self, task_id: str) -> Parked | None:
        """Returns the parked task with this id."""
        return next((found for store in self._stores() if (found := store.get(task_id)) is not None), None)

    def of_executions(self, execution_ids: Collection[str]) -> Counter[str]:
        """Returns, by execution, the number of tasks that wait to be retried."""
        statement = "SELECT count(*) FROM parked WHERE execution = ? AND is_active = 0"
        found = Counter[str]()
        for store in self._stores():
            for one in execution_ids:
                found[one] += sum(count for (count,) in store.rows(statement, one))
        return found

    def failures(self) -> dict[str, ParkedFailures]:
        """Returns, by rule and replica, the tasks that wait to be retried."""
        statement = (  # `message` is that of the row with the newest time
            "SELECT by_rule, count(*), max(parked_at), message FROM parked WHERE is_active = 0 GROUP BY by_rule"
        )
        found: dict[str, list[tuple[int, int, str]]] = {}
        for store in self._stores():
            for rule, count, parked_at, message in store.rows(statement):
                found.setdefault(rule, []).append((parked_at, count, message))
        return {
            rule: ParkedFailures(sum(count for _, count, _ in them), max(them)[2])
            for rule, them in found.items()
        }

    async def retry_of_rule(self, rule: PlaceName | None) -> int:
        """Makes the waiting tasks of one rule, or of all rules, due, and returns their number.

        Raises:
            LogError: The log did not accept it.
        """
        condition = "WHERE is_active = 0 AND (by_rule = ? OR ? IS NULL)"
        count = 0
        for store in self._stores():
            records = store.records(condition, rule, rule)
            while some := [one async for one in in_turns(itertools.islice(records, _CHUNK))]:
                await self.retry_now(*some)
                count += len(some)
        return count

    async def retry_now(self, *tasks: Parked) -> None:
        """Makes the tasks due, except those that an agent is working on; their agents start them within a second.

        Raises:
            LogError: The log did not accept it.
        """
        now = self._clock.now()
        due = [one.model_copy(update={"not_before": now, "time": now}) for one in tasks if not one.is_active]
        await self._log.append(
            [Append(topics.retry(one.destination_region), one.key, codec.encode(one)) for one in due]
        )

    async def close(self, parked: Parked) -> None:
        """Ends a task as `Stopped`, so that it is not retried.

        Raises:
            LogError: The log did not accept it.
        """
        error = TaskError(code="closed", side=Side.MESH, message="closed by hand while it was parked")
        end = parked.ended(Status.STOPPED, error, self._clock.now())
        region = parked.destination_region
        completion = Append(topics.completions(region), end.key, codec.encode(end))
        await self._log.append([completion], then=[Append(topics.retry(region), parked.task_id, None)])

    def _stores(self) -> list[ParkedStore]:
        return list(self._regions.states.values())


def _newest_first(store: ParkedStore, after: Position | None) -> Iterator[Parked]:
    condition = "WHERE (started, task_id) < (?, ?) ORDER BY started DESC, task_id DESC LIMIT ?"
    last = (microseconds(after.time), after.id) if after is not None else (2**62, "")
    while page := list(store.records(condition, *last, _PAGE)):
        yield from page
        last = microseconds(page[-1].start_time), page[-1].task_id


def _apply(store: ParkedStore, record: Record) -> None:
    parked = None if record.value is None else codec.decode(record.value, Parked)
    store.replace(record.key, parked if parked is not None and not parked.is_look else None)
