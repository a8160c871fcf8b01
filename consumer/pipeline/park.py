"""Tasks that failed for now or hold up others: on `mesh.<region>.retry`, so that their event is finished.

The record is written before the event is finished, and its tombstone with the end of the task. Each agent follows all
of its region's; it runs those that it parked itself, and of agents that are gone the first by name runs them. Should
two run one at a time, nothing is lost by it: a task may be run twice.

A task that is set aside has not failed. Its agent goes on with it, and others leave it alone while that one lives.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import structlog

from consumer.pipeline.complete import complete_parked, make_parked
from consumer.pipeline.lanes import Lanes
from consumer.pipeline.live_agents import LiveAgents
from consumer.pipeline.match import match
from consumer.pipeline.retry_policy import Patience
from consumer.progress import Phase, TaskControl, TaskRun
from consumer.task import FILLS, FILTERED, SUPERSEDED, Outcome, Task, skipped
from mesh.clock import Clock
from mesh.errors import LogUnavailable
from mesh.log.port import Append, Log, Record
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from mesh.rules.stops import Stops
from schemas import codec, topics
from schemas.completions import Side, TaskError
from schemas.names import PlaceName, Region
from schemas.parked import STILL_QUEUED, STILL_RUNNING, Parked

LOG = structlog.get_logger()

_AT_ONCE = (
    100  # of those that are due for one destination, in the lanes: a dead one keeps nobody else waiting
)

_Target = tuple[str, ...]


class Parking:
    """Fed by a table of `mesh.<region>.retry`."""

    def __init__(
        self,
        *,
        agent: str,
        region: Region,
        log: Log,
        state: MeshState,
        live_agents: LiveAgents,
        stops: Stops,
        patience: Patience,
        clock: Clock,
        metrics: Metrics,
        random: Callable[[], float],
    ) -> None:
        self._agent, self._region, self._log, self._state = agent, region, log, state
        self._live_agents, self._stops, self._patience = live_agents, stops, patience
        self._clock, self._metrics, self._random = clock, metrics, random
        self._parked: dict[str, Parked] = {}
        self._by_target: dict[_Target, dict[str, Parked]] = {}  # the same, as every end of a task asks
        self._running: set[str] = set()
        self._running_for: Counter[PlaceName] = Counter()  # how many of these, by destination
        self._aside: set[str] = set()  # in our hands, until the log says something else of them
        self._writing = asyncio.Lock()

    def ours(self) -> Iterator[Parked]:
        """Those that this agent will run again."""
        now = self._clock.now()
        return (one for one in self._parked.values() if self._is_ours(one, now))

    def get(self, task_id: str) -> Parked | None:
        return self._parked.get(task_id)

    def failed(self, task: Task) -> Parked | None:
        """What is parked of it for having failed before."""
        parked = self.get(task.task_id)
        return parked if parked is not None and not parked.in_hand else None

    def apply(self, record: Record) -> None:
        """Take one record over; `DecodeError` when it is none of ours."""
        found = None if record.value is None else codec.decode(record.value, Parked)
        before = self._parked.pop(record.key, None)
        for one, change in ((before, -1), (found, 1)):
            if one is not None:
                self._metrics.parked_tasks.labels(one.destination_place).inc(change)
        if before is not None:
            others = self._by_target[_target_of(before)]
            del others[record.key]
            if not others:
                del self._by_target[_target_of(before)]
        if found is not None:
            self._parked[record.key] = found
            self._by_target.setdefault(_target_of(found), {})[record.key] = found
        if found is None or not found.in_hand:
            self._aside.discard(record.key)

    def wants(self, task: Task, outcome: Outcome) -> bool:
        """Whether the task is to be tried again later: trying may help, and it has not been parked for too long."""
        if not outcome.may_help_later or task.is_dry_run:
            return False
        if self.get(task.task_id) is None and task.task_id in self._running:
            return False  # closed by a human while it ran
        failed, now = self.failed(task), self._clock.now()
        since = failed.first_parked if failed is not None else now
        return now - since < timedelta(seconds=self._patience.parked_for)

    async def park(self, run: TaskRun, outcome: Outcome) -> None:
        """Durably; `LogUnavailable`. What it has of progress on the log goes: it is not in progress any more."""
        if outcome.error is None:
            raise ValueError("only what failed is tried again")
        task = run.task
        before, now = self.failed(task), self._clock.now()
        rounds = before.rounds + 1 if before is not None else 1
        record = make_parked(
            run, outcome.error, self._agent, now, rounds=rounds,
            first_parked=before.first_parked if before is not None else now,
            not_before=now + timedelta(seconds=self._wait(rounds)),
        )  # fmt: skip
        retry, status = topics.retry(self._region), topics.status(self._region)
        async with self._writing:
            await self._log.append(
                [Append(retry, record.key, codec.encode(record)), Append(status, task.task_id, None)]
            )
        LOG.warning(
            "task is parked", action="task_parked", task=task.task_id, rule=task.rule.name, rounds=rounds,
            destination=record.destination, error=record.error.message, not_before=record.not_before.isoformat(),
        )  # fmt: skip

    async def park_running(self, run: TaskRun) -> bool:
        """Park what goes on all the same, durably; False when it is about to end. `LogUnavailable`."""
        task = run.task
        async with self._writing:
            if run.control.phase is Phase.ENDING:
                return False
            # First: an append that raises may have landed, and then the task's end has to close it.
            self._aside.add(task.task_id)
            now = self._clock.now()
            record = make_parked(
                run, _why_parked(run.control), self._agent, now, rounds=1, first_parked=now, not_before=now
            )
            await self._log.append([Append(topics.retry(self._region), record.key, codec.encode(record))])
        LOG.info(
            "task goes on, parked", action="task_parked_running", task=task.task_id, rule=task.rule.name,
            destination=record.destination, code=record.error.code,
        )  # fmt: skip
        return True

    async def is_parked(self, task: Task) -> bool:
        """Whether its end has a record to close: when one is being written, as soon as it is."""
        async with self._writing:
            return task.task_id in self._aside or task.task_id in self._parked

    async def forget(self, task: Task) -> None:
        """Close the record of what proved to be no task; `LogUnavailable`."""
        if await self.is_parked(task):
            await self._log.append([Append(topics.retry(self._region), task.task_id, None)])

    async def supersede(self, task: Task) -> None:
        """End the older ones that would write what `task`, which has ended or is parked itself, was about."""
        names = (task.repository, task.destination_repository)
        target = (task.rule.name, task.destination.name, *names, task.reference)
        there = self._by_target.get(target, {})
        older = [one for one in there.values() if _is_older(one, task) and not self._goes_on(one)]
        for old in older:
            await self._end(old, skipped(SUPERSEDED, "a newer push or deletion of this tag came"))

    async def run(self, lanes: Lanes) -> None:
        """Put what is due into the lanes, for ever."""
        while True:
            try:
                for parked in list(self._due()):
                    if self._running_for[parked.destination_place] < _AT_ONCE:
                        await self._begin(parked, lanes)
            except LogUnavailable as error:
                LOG.warning("parked tasks wait for the log", action="log_away", error=str(error))
            await self._clock.sleep(self._patience.look_at_parked)

    def _due(self) -> Iterator[Parked]:
        now = self._clock.now()
        for parked in sorted(self._parked.values(), key=lambda one: one.not_before):
            waits = parked.not_before > now and parked.execution_id not in self._stops
            free = parked.task_id not in self._running and not self._goes_on(parked)
            if free and not waits and self._is_ours(parked, now):
                yield parked

    def _goes_on(self, parked: Parked) -> bool:
        """Whether an agent that lives has it in hand."""
        if parked.agent == self._agent:
            return parked.task_id in self._aside
        return parked.in_hand and parked.agent in self._live_agents.names(self._clock.now())

    def _is_ours(self, parked: Parked, now: datetime) -> bool:
        if parked.agent == self._agent:
            return True
        alive = self._live_agents.names(now)
        return parked.agent not in alive and self._agent == min(alive | {self._agent})

    async def _begin(self, parked: Parked, lanes: Lanes) -> None:
        found = [
            task for task in match(parked.event, self._state, self._region) if task.task_id == parked.task_id
        ]
        if not found:
            await self._end(parked, skipped(FILTERED, "its rule is gone, or does not want it any more"))
        elif not lanes.is_busy(found[0]):  # what is newer ends it
            self._running.add(parked.task_id)
            self._running_for[parked.destination_place] += 1
            lanes.put(found[0], lambda: self._has_run(parked))

    def _has_run(self, parked: Parked) -> None:
        self._running.discard(parked.task_id)
        self._running_for[parked.destination_place] -= 1

    async def _end(self, parked: Parked, outcome: Outcome) -> None:
        await complete_parked(parked, outcome, self._clock.now(), self._log)

    def _wait(self, rounds: int) -> float:
        """Seconds, doubled each round, and up to a quarter less."""
        longest: float = min(
            self._patience.longest_park, self._patience.first_park * 2 ** min(rounds - 1, 30)
        )
        return longest * (1 - self._random() / 4)


def _why_parked(control: TaskControl) -> TaskError:
    """What its record says instead of an error."""
    if control.phase is Phase.RUNNING:
        message = "its copy goes on; it is parked so that what is behind it goes on too"
        return TaskError(code=STILL_RUNNING, side=Side.MESH, message=message)
    message = "it waits for one before it; it is parked so that what is behind it goes on"
    return TaskError(code=STILL_QUEUED, side=Side.MESH, message=message)


def _target_of(parked: Parked) -> _Target:
    """What it writes, as `Task.target` has it."""
    names = (parked.repository, parked.destination_repository)
    return (parked.by, parked.destination_place, *names, str(parked.tag or parked.event.digest))


def _is_older(parked: Parked, task: Task) -> bool:
    """Of two with one target. What supersedes what is as in the lanes."""
    part_of = parked.event.part_of
    if (task.is_bulk and part_of is None) or (
        task.is_fill and part_of is not None and part_of.trigger not in FILLS
    ):
        return False
    return task.event.time > parked.event.time and parked.task_id != task.task_id and not task.is_dry_run
