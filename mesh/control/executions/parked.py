"""Parked tasks of all regions, followed into memory; and what a human does with one: try it now, or close it.

One that is in hand of its agent has not failed: it is shown, but there is nothing to try again.
"""

from collections import Counter
from collections.abc import Callable

import structlog

from mesh.clock import Clock
from mesh.control.readers.each_region import EachRegion
from mesh.log.port import Append, Log, Record
from mesh.log.table import Table
from mesh.rules.state import MeshState
from schemas import codec, topics
from schemas.completions import Side, Status, TaskError
from schemas.names import PlaceName, Region
from schemas.parked import Parked

LOG = structlog.get_logger()


class ParkedTasks:
    """`try_now` and `close` raise `LogError`."""

    def __init__(self, *, log: Log, state: MeshState, clock: Clock, random: Callable[[], float]) -> None:
        self._log, self._clock, self._random = log, clock, random
        self._tasks: dict[Region, dict[str, Parked]] = {}
        self._regions = EachRegion(
            "parked", topic_of=topics.retry, open_table=self._table,
            close=lambda region: self._tasks.pop(region, None), log=log, state=state, clock=clock, random=random,
        )  # fmt: skip

    async def run(self) -> None:
        """Follow for ever."""
        await self._regions.run()

    def all(self) -> list[Parked]:
        """The next to be tried first."""
        found = [one for tasks in self._tasks.values() for one in tasks.values()]
        return sorted(found, key=lambda one: (one.not_before, one.task_id))

    def get(self, task_id: str) -> Parked | None:
        return next((tasks[task_id] for tasks in self._tasks.values() if task_id in tasks), None)

    def by_execution(self) -> Counter[str]:
        """How many of each wait to be tried again."""
        found = (one for tasks in self._tasks.values() for one in tasks.values())
        return Counter(one.execution_id for one in found if not one.is_active)

    async def try_now(self, *tasks: Parked) -> None:
        """Their agents begin them within a second, those that they have not begun yet."""
        now = self._clock.now()
        due = [one.model_copy(update={"not_before": now, "time": now}) for one in tasks if not one.is_active]
        await self._log.append(
            [Append(topics.retry(one.destination_region), one.key, codec.encode(one)) for one in due]
        )

    def of_rule(self, rule: PlaceName | None) -> list[Parked]:
        """Those that wait to be tried again, of all rules or of one."""
        return [one for one in self.all() if rule in (None, one.by) and not one.is_active]

    async def close(self, parked: Parked) -> None:
        """It ends `Stopped`, and is not tried again."""
        now = self._clock.now()
        error = TaskError(code="closed", side=Side.MESH, message="closed by hand while it was parked")
        end = parked.ended(Status.STOPPED, error, now)
        region = parked.destination_region
        await self._log.append(
            [
                Append(topics.completions(region), end.key, codec.encode(end)),
                Append(topics.retry(region), parked.task_id, None),
            ]
        )

    def _table(self, topic: str, region: Region) -> Table:
        tasks = self._tasks[region] = {}

        def apply(record: Record) -> None:
            if record.value is None:
                tasks.pop(record.key, None)
            else:
                tasks[record.key] = codec.decode(record.value, Parked)

        return Table(self._log, topic, apply, unreadable=self._ignore, clock=self._clock, random=self._random)

    async def _ignore(self, record: Record, reason: str) -> None:
        """The region's agents bury it."""
        LOG.warning(
            "parked task unreadable", action="parked_unreadable", position=record.position, reason=reason
        )
