"""Follows the parked tasks of all regions into memory, retries them at once, or closes them.

A parked task that an agent is working on has not failed again: it is listed, but not retried.
"""

from collections import Counter

from mesh.control.ports import ControlPorts
from mesh.control.readers.region_tables import RegionTables
from mesh.log.port import Append, Record
from schemas import codec, topics
from schemas.completions import Side, Status, TaskError
from schemas.names import PlaceName
from schemas.parked import Parked


class ParkedTasks:
    """The parked tasks."""

    def __init__(self, ports: ControlPorts) -> None:
        self._log, self._clock = ports.log, ports.clock
        self._regions = RegionTables(
            "parked", topic_of=topics.retry, new_state=dict[str, Parked], apply=_apply, ports=ports
        )  # an unreadable record goes to the dead-letter queue by the region's agents

    async def run(self) -> None:
        """Follows the topics until cancelled."""
        await self._regions.run()

    def all(self) -> list[Parked]:
        """Returns all parked tasks, the next to be retried first."""
        found = [one for tasks in self._regions.states.values() for one in tasks.values()]
        return sorted(found, key=lambda one: (one.not_before, one.task_id))

    def get(self, task_id: str) -> Parked | None:
        """Returns the parked task with this id."""
        return next((tasks[task_id] for tasks in self._regions.states.values() if task_id in tasks), None)

    def by_execution(self) -> Counter[str]:
        """Returns, by execution, the number of tasks that wait to be retried."""
        return Counter(one.execution_id for one in self.all() if not one.is_active)

    def of_rule(self, rule: PlaceName | None) -> list[Parked]:
        """Returns the tasks of one rule, or of all rules, that wait to be retried."""
        return [one for one in self.all() if rule in (None, one.by) and not one.is_active]

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


def _apply(tasks: dict[str, Parked], record: Record) -> None:
    if record.value is None:
        tasks.pop(record.key, None)
        return
    parked = codec.decode(record.value, Parked)
    if not parked.is_look:
        tasks[record.key] = parked
