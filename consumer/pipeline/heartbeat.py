"""What an agent reports on `mesh.<region>.status`: that it is live, the state of its places, and what is running."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

from consumer.pipeline.complete import make_progress
from consumer.pipeline.lanes import Entry
from consumer.pipeline.parked_index import ParkedCount
from consumer.ports import AgentPorts
from consumer.progress import TaskRun
from mesh.log.port import Append
from schemas import codec, topics
from schemas.completions import MAX_RULE_BACKLOGS, DestinationBacklog, Heartbeat, RuleBacklog
from schemas.envelope import Time, make_id
from schemas.names import PlaceName


class Reporter:
    """Writes the agent's status records; the agent decides when."""

    def __init__(self, ports: AgentPorts, relay: Callable[[], str | None]) -> None:
        """`relay` returns the address of the agent's relay, if it has one."""
        self._ports, self._relay = ports, relay
        self._topic = topics.status(ports.region)
        self._writing = asyncio.Lock()

    async def heartbeat(
        self,
        running: int,
        waiting: Mapping[PlaceName, DestinationBacklog],
        rules: Mapping[PlaceName, RuleBacklog],
    ) -> None:
        """Writes a heartbeat with the number of running tasks and the backlog of each destination and rule."""
        ports = self._ports
        now = ports.clock.now()
        heartbeat = Heartbeat(
            id=make_id("heartbeat", ports.agent, now.isoformat()), time=now, agent=ports.agent, region=ports.region,
            rules_rev=ports.rules.rev, running=running, relay=self._relay(),
            places={str(place): state for place, state in ports.places.states().items()},
            waiting={str(place): backlog for place, backlog in waiting.items()},
            rules={str(rule): backlog for rule, backlog in rules.items()},
        )  # fmt: skip
        await ports.log.append([Append(self._topic, ports.agent, codec.encode(heartbeat))])

    async def progress(self, running: Iterable[TaskRun]) -> None:
        """Writes one record for each running task; the task's end writes a tombstone over it."""
        async with self._writing:
            now = self._ports.clock.now()
            records = [
                Append(
                    self._topic, run.task.task_id, codec.encode(make_progress(run, self._ports.agent, now))
                )
                for run in running
            ]
            if records:
                await self._ports.log.append(records)

    async def settled(self) -> None:
        """Waits until no progress is being written, so that a tombstone written now comes after it."""
        async with self._writing:
            return

    async def leave(self) -> None:
        """Removes the heartbeat, so that the others need not wait until it is too old."""
        await self._ports.log.append([Append(self._topic, self._ports.agent, None)])


def count_backlog(
    entries: Iterable[Entry], parked: Iterable[ParkedCount], is_parked: Callable[[str], bool]
) -> Mapping[PlaceName, DestinationBacklog]:
    """Returns what the agent has left to do for each destination: what is in lanes, and what it parked.

    `is_parked` says which tasks `parked` has counted, since a parked task that runs again counts once.
    """
    tasks: dict[PlaceName, set[str]] = defaultdict(set)
    parked_tasks = Counter[PlaceName]()
    oldest: dict[PlaceName, Time] = {}
    bytes_left = Counter[PlaceName]()
    for one in parked:
        parked_tasks[one.destination] += one.tasks
        oldest[one.destination] = min(one.oldest, oldest.get(one.destination, one.oldest))
    for entry in entries:
        if entry.task.is_dry_run:
            continue
        place, happened = entry.task.destination.name, entry.task.event.occurred_at
        oldest[place] = min(happened, oldest.get(place, happened))
        if not is_parked(entry.task.task_id):
            tasks[place].add(entry.task.task_id)
        progress = entry.run.progress
        bytes_left[place] += max(
            0, progress.bytes_total - progress.bytes_transferred - progress.bytes_skipped
        )
    return {
        place: DestinationBacklog(
            tasks=parked_tasks[place] + len(tasks.get(place, ())), oldest=since, bytes_left=bytes_left[place]
        )
        for place, since in oldest.items()
    }


def count_rule_backlog(
    entries: Iterable[Entry], parked: Iterable[ParkedCount], is_parked: Callable[[str], bool]
) -> Mapping[PlaceName, RuleBacklog]:
    """Returns what the agent has left to do for each rule and replica, as `count_backlog` does for destinations.

    Of many, those whose oldest push is oldest. What a listing found was not pushed just now, so it has no age here.
    """
    tasks: dict[PlaceName, set[str]] = defaultdict(set)
    parked_tasks = Counter[PlaceName]()
    pushed: dict[PlaceName, list[Time]] = defaultdict(list)
    for one in parked:
        parked_tasks[one.by] += one.tasks
        pushed[one.by] += [] if one.is_listed else [one.oldest]
    for entry in entries:
        task = entry.task
        if task.is_dry_run:
            continue
        pushed[task.rule.name] += [] if task.is_bulk else [task.event.occurred_at]
        if not is_parked(task.task_id):
            tasks[task.rule.name].add(task.task_id)
    found = {
        rule: RuleBacklog(
            tasks=parked_tasks[rule] + len(tasks.get(rule, ())), oldest_push=min(times, default=None)
        )
        for rule, times in pushed.items()
    }
    if len(found) <= MAX_RULE_BACKLOGS:
        return found
    return dict(sorted(found.items(), key=_oldest_first)[:MAX_RULE_BACKLOGS])


def _oldest_first(item: tuple[PlaceName, RuleBacklog]) -> tuple[bool, float]:
    oldest = item[1].oldest_push
    return oldest is None, oldest.timestamp() if oldest is not None else 0.0
