"""What an agent reports on `mesh.<region>.status`: that it is live, the state of its places, and what is running."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from consumer.pipeline.complete import make_progress
from consumer.pipeline.lanes import Entry
from consumer.pipeline.parked_index import ParkedSummary
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
    entries: Iterable[Entry], parked: Iterable[ParkedSummary]
) -> Mapping[PlaceName, DestinationBacklog]:
    """Returns what the agent has left to do for each destination.

    That is what is queued or running in lanes and what is parked; a parked task that runs again counts once.
    """
    since: dict[PlaceName, dict[str, Time]] = defaultdict(dict)
    bytes_left: dict[PlaceName, int] = defaultdict(int)
    for one in parked:
        since[one.destination_place][one.task_id] = one.occurred_at
    for entry in entries:
        if entry.task.is_dry_run:
            continue
        place, progress = entry.task.destination.name, entry.run.progress
        since[place][entry.task.task_id] = entry.task.event.occurred_at
        bytes_left[place] += max(
            0, progress.bytes_total - progress.bytes_transferred - progress.bytes_skipped
        )
    return {
        place: DestinationBacklog(tasks=len(times), oldest=min(times.values()), bytes_left=bytes_left[place])
        for place, times in since.items()
    }


def count_rule_backlog(
    entries: Iterable[Entry], parked: Iterable[ParkedSummary]
) -> Mapping[PlaceName, RuleBacklog]:
    """Returns what the agent has left to do for each rule and replica; a parked task that runs again counts once.

    Of many, those whose oldest push is oldest. What a listing found was not pushed just now, so it has no age here.
    """
    pushed: dict[PlaceName, dict[str, Time | None]] = defaultdict(dict)
    for one in parked:
        pushed[one.by][one.task_id] = None if one.is_listed else one.occurred_at
    for entry in entries:
        task = entry.task
        if not task.is_dry_run:
            pushed[task.rule.name][task.task_id] = None if task.is_bulk else task.event.occurred_at
    found = {
        rule: RuleBacklog(
            tasks=len(times), oldest_push=min((it for it in times.values() if it is not None), default=None)
        )
        for rule, times in pushed.items()
    }
    if len(found) <= MAX_RULE_BACKLOGS:
        return found
    return dict(sorted(found.items(), key=_oldest_first)[:MAX_RULE_BACKLOGS])


def _oldest_first(item: tuple[PlaceName, RuleBacklog]) -> tuple[bool, float]:
    oldest = item[1].oldest_push
    return oldest is None, oldest.timestamp() if oldest is not None else 0.0
