"""Parked tasks: those that failed for now, or that hold up others while they run, on `mesh.<region>.retry`.

The record is written before the task's event is finished, and its tombstone with the end of the task. Each agent
follows all records of its region. It runs again those that it parked itself; those of dead agents are run by the first
live agent by name. Should two agents run one at a time, nothing is lost: a task may run twice.

A task that is parked while it runs has not failed. Its agent continues with it, and others leave it alone while that
agent is live.
"""

import asyncio
from collections import Counter
from collections.abc import Collection
from datetime import timedelta
from functools import partial

import structlog

from consumer.pipeline import late_write
from consumer.pipeline.complete import complete_parked, make_parked
from consumer.pipeline.lanes import Lanes
from consumer.pipeline.match import match
from consumer.pipeline.parked_index import ParkedCount, ParkedIndex
from consumer.pipeline.region_status import RegionStatus
from consumer.ports import AgentPorts
from consumer.progress import Phase, TaskControl, TaskProgress, TaskRun
from consumer.settings import ParkingPolicy
from consumer.task import FILTERED, SUPERSEDED, Outcome, Task, skipped
from mesh.log.port import Append, Record
from mesh.retry import RetryLoop
from mesh.rules.stops import Stops
from schemas import codec, topics
from schemas.completions import Side, TaskError
from schemas.names import PlaceName
from schemas.parked import STILL_QUEUED, STILL_RUNNING, Parked

LOG = structlog.get_logger()


class Parking:
    """The parked tasks of a region. Built from a table of `mesh.<region>.retry`."""

    def __init__(
        self, ports: AgentPorts, *, status: RegionStatus, stops: Stops, policy: ParkingPolicy
    ) -> None:
        self._ports, self._status, self._stops, self._policy = ports, status, stops, policy
        self._agent, self._clock, self._log = ports.agent, ports.clock, ports.log
        self._topic = topics.retry(ports.region)
        self._parked = ParkedIndex()
        self._requeued: set[str] = set()  # parked tasks that are in the lanes again
        self._requeued_for: Counter[PlaceName] = Counter()  # how many of these, by destination
        self._parked_running: set[str] = set()  # by this agent, until the log says otherwise
        self._stops_known = 0  # whose parked tasks are due
        self._writing = asyncio.Lock()

    def counts(self) -> list[ParkedCount]:
        """Returns how many tasks this agent will run again."""
        return self._parked.counts(it for it in self._parked.agents() if self._owns_tasks_of(it))

    def counted(self, task_id: str) -> bool:
        """Returns whether `counts` has counted a task."""
        agent = self._parked.agent_of(task_id)
        return agent is not None and self._owns_tasks_of(agent)

    def get(self, task_id: str) -> Parked | None:
        """Returns the record of a parked task."""
        return self._parked.get(task_id)

    def failed(self, task: Task) -> Parked | None:
        """Returns the record of a task that was parked because it failed."""
        parked = self.get(task.task_id)
        return parked if parked is not None and not parked.is_active else None

    def apply(self, record: Record) -> None:
        """Applies one record of the topic.

        Raises:
            DecodeError: It is no parked task.
        """
        after = None if record.value is None else codec.decode(record.value, Parked)
        before = self._parked.replace(record.key, after)
        for parked, change in ((before, -1), (after, 1)):
            if parked is not None and not parked.is_look:
                self._ports.metrics.parked_tasks.labels(parked.destination_place).inc(change)
        if after is not None and after.execution_id in self._stops:
            self._parked.make_due(after.key, self._clock.now())
        if after is None or not after.is_active:
            self._parked_running.discard(record.key)

    async def came_back(self, places: Collection[PlaceName]) -> None:
        """Makes due what was parked because of registries that answer again, spread over a few seconds."""
        if tasks := await self._parked.came_back(places, self._clock.now()):
            LOG.info("parked tasks are due", action="parked_due", places=sorted(places), tasks=tasks)

    def wants(self, task: Task, outcome: Outcome) -> bool:
        """Returns whether the task is to be run again later: that may help, and it is not given up yet."""
        if not outcome.may_help_later or task.is_dry_run:
            return False
        if self.get(task.task_id) is None and task.task_id in self._requeued:
            return False  # closed by a human while it ran
        failed, now = self.failed(task), self._clock.now()
        since = failed.first_parked if failed is not None else now
        return now - since < timedelta(seconds=self._policy.give_up_after)

    async def park(self, run: TaskRun, outcome: Outcome) -> None:
        """Parks a task that failed, durably, and removes its progress from the log.

        Raises:
            LogUnavailable: The log cannot be written now.
        """
        if outcome.error is None:
            raise ValueError("only a task that failed is run again")
        task = run.task
        before, now = self.failed(task), self._clock.now()
        rounds = before.rounds + 1 if before is not None else 1
        record = make_parked(
            run, outcome.error, self._agent, now, rounds=rounds,
            first_parked=before.first_parked if before is not None else now,
            not_before=now + timedelta(seconds=self._policy.wait(rounds, self._ports.random)),
        )  # fmt: skip
        no_progress = Append(topics.status(self._ports.region), task.task_id, None)
        async with self._writing:
            await self._log.append([Append(self._topic, record.key, codec.encode(record)), no_progress])
        LOG.warning(
            "task is parked", action="task_parked", task=task.task_id, rule=task.rule.name, rounds=rounds,
            destination=record.destination, error=record.error.message, not_before=record.not_before.isoformat(),
        )  # fmt: skip

    async def look_again(self, task: Task, number: int = 1) -> None:
        """Parks the look with this number at the tag of `task`, durably, or ends the looks after the last.

        Raises:
            LogUnavailable: The log cannot be written now.
        """
        now = self._clock.now()
        look, due = (
            (late_write.look_at(task, now) if number == 1 else task),
            late_write.next_look(number, now),
        )
        if look is None:
            return
        value: bytes | None = None
        if due is not None:
            run = TaskRun(look, TaskProgress(started=now))
            record = make_parked(
                run, late_write.reason(), self._agent, now, rounds=number, first_parked=now, not_before=due
            )
            value = codec.encode(record)
        no_progress = Append(topics.status(self._ports.region), look.task_id, None)
        await self._log.append([Append(self._topic, look.task_id, value), no_progress])
        LOG.info(
            "a tag is looked at again", action="look_again", task=look.task_id, number=number,
            tag=look.tag, destination=look.destination.name, not_before=due.isoformat() if due else None,
        )  # fmt: skip

    async def park_running(self, run: TaskRun) -> bool:
        """Parks a task, durably, while it stays in its lane; returns False when it is about to end.

        Raises:
            LogUnavailable: The log cannot be written now.
        """
        task = run.task
        async with self._writing:
            if run.control.phase is Phase.ENDING:
                return False
            # First: an append that raises may have landed, and then the task's end has to close it.
            self._parked_running.add(task.task_id)
            now = self._clock.now()
            record = make_parked(
                run, _why_parked(run.control), self._agent, now, rounds=1, first_parked=now, not_before=now
            )
            await self._log.append([Append(self._topic, record.key, codec.encode(record))])
        LOG.info(
            "task is parked while it runs", action="task_parked_running", task=task.task_id, rule=task.rule.name,
            destination=record.destination, code=record.error.code,
        )  # fmt: skip
        return True

    async def is_parked(self, task: Task) -> bool:
        """Returns whether the task's end has a record to close; waits for a record that is being written."""
        async with self._writing:
            return task.task_id in self._parked_running or task.task_id in self._parked

    async def forget(self, task: Task) -> None:
        """Closes the record of what proved to be no task.

        Raises:
            LogUnavailable: The log cannot be written now.
        """
        if await self.is_parked(task):
            await self._log.append([Append(self._topic, task.task_id, None)])

    async def supersede(self, task: Task, *, holds: bool = False) -> None:
        """Ends the older parked tasks that `task`, which has ended or is parked itself, makes needless.

        `holds` says that the destination holds what the task was about.
        """
        for parked in self._parked.of_target(task.target):
            if _is_superseded(parked, task, holds=holds) and not self._is_running(parked):
                await self._end(parked, skipped(SUPERSEDED, "a newer push or deletion of this tag came"))

    async def run(self, lanes: Lanes) -> None:
        """Puts what is due into the lanes until cancelled."""
        retry = RetryLoop("parked_tasks", self._clock, self._ports.random)
        await retry.repeat(partial(self._requeue_due, lanes), self._policy.check_every)

    async def _requeue_due(self, lanes: Lanes) -> None:
        now = self._clock.now()
        if (known := len(self._stops)) > self._stops_known:
            self._parked.stop(self._stops.after(self._stops_known), now)
            self._stops_known = known
        for (destination, agent), keys in self._parked.due(now):
            if not self._owns_tasks_of(agent):
                continue
            while self._requeued_for[destination] < self._policy.due_per_destination:
                if (key := next(keys, None)) is None:
                    break
                if key in self._requeued:
                    continue
                parked = self._parked.get(key)  # it may have ended during a wait
                if parked is not None and not self._is_running(parked):
                    await self._requeue(parked, lanes)

    def _is_running(self, parked: Parked) -> bool:
        """Whether a live agent still runs it or has it in a lane."""
        if parked.agent == self._agent:
            return parked.task_id in self._parked_running
        return parked.is_active and parked.agent in self._status.live_agents()

    def _owns_tasks_of(self, agent: str) -> bool:
        if agent == self._agent:
            return True
        live = self._status.live_agents()
        return agent not in live and self._agent == min(live | {self._agent})

    async def _requeue(self, parked: Parked, lanes: Lanes) -> None:
        matched = match(parked.event, self._ports.state, self._ports.region)
        task = next((it for it in matched if it.task_id == parked.task_id), None)
        if task is None and parked.is_look:
            await self._log.append([Append(self._topic, parked.key, None)])
        elif task is None:
            await self._end(parked, skipped(FILTERED, "its rule was deleted, or does not want it any more"))
        elif not lanes.is_busy(task):  # else that task ends it
            self._requeued.add(parked.task_id)
            self._requeued_for[parked.destination_place] += 1
            lanes.put(task, partial(self._has_run, parked))

    def _has_run(self, parked: Parked) -> None:
        self._requeued.discard(parked.task_id)
        self._requeued_for[parked.destination_place] -= 1

    async def _end(self, parked: Parked, outcome: Outcome) -> None:
        await complete_parked(parked, outcome, self._clock.now(), self._log)


def _why_parked(control: TaskControl) -> TaskError:
    """What the record of a task that has not failed has in place of an error."""
    if control.phase is Phase.RUNNING:
        message = "the copy is still running; it is parked so that the events behind it are finished"
        return TaskError(code=STILL_RUNNING, side=Side.MESH, message=message)
    message = "it waits for an earlier task; it is parked so that the events behind it are finished"
    return TaskError(code=STILL_QUEUED, side=Side.MESH, message=message)


def _is_superseded(parked: Parked, task: Task, *, holds: bool) -> bool:
    is_newer = task.event.time > parked.event.time and parked.task_id != task.task_id
    return is_newer and not parked.is_look and task.supersedes(parked.event, holds=holds)
