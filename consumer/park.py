"""Tasks that failed for now: kept on `mesh.<region>.retry`, so that their event is finished and holds up nobody.

The record is written before the event is finished, and its tombstone with the end of the task. Each agent follows all
of its region's; it runs those that it parked itself, and of agents that are gone the first by name runs them. Should
two run one at a time, nothing is lost by it: a task may be run twice.
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import structlog

from consumer.complete import complete_parked, make_parked
from consumer.lanes import Lanes
from consumer.living import Living
from consumer.match import match
from consumer.patience import Patience
from consumer.tally import Tally
from consumer.task import FILTERED, SUPERSEDED, Outcome, Task, skipped
from mesh.clock import Clock
from mesh.errors import LogUnavailable
from mesh.log.port import Append, Log, Record
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from mesh.rules.stops import Stops
from schemas import codec, topics
from schemas.names import Region
from schemas.parked import Parked

LOG = structlog.get_logger()

_AT_ONCE = 100  # of those that are due, in the lanes


class Parking:
    """Fed by a table of `mesh.<region>.retry`."""

    def __init__(
        self,
        *,
        agent: str,
        region: Region,
        log: Log,
        state: MeshState,
        living: Living,
        stops: Stops,
        patience: Patience,
        clock: Clock,
        metrics: Metrics,
        random: Callable[[], float],
    ) -> None:
        self._agent, self._region, self._log, self._state = agent, region, log, state
        self._living, self._stops, self._patience = living, stops, patience
        self._clock, self._metrics, self._random = clock, metrics, random
        self._parked: dict[str, Parked] = {}
        self._running: set[str] = set()

    def ours(self) -> Iterator[Parked]:
        """Those that this agent will run again."""
        now = self._clock.now()
        return (one for one in self._parked.values() if self._is_ours(one, now))

    def get(self, task_id: str) -> Parked | None:
        return self._parked.get(task_id)

    def apply(self, record: Record) -> None:
        """Take one record over; `DecodeError` when it is none of ours."""
        found = None if record.value is None else codec.decode(record.value, Parked)
        before = self._parked.pop(record.key, None)
        for one, change in ((before, -1), (found, 1)):
            if one is not None:
                self._metrics.parked_tasks.labels(one.destination_place).inc(change)
        if found is not None:
            self._parked[record.key] = found

    def wants(self, task: Task, outcome: Outcome) -> bool:
        """Whether the task is to be tried again later: trying may help, and it has not been parked for too long."""
        if not outcome.may_help_later or task.is_dry_run:
            return False
        parked = self.get(task.task_id)
        if parked is None and task.task_id in self._running:
            return False  # closed by a human while it ran
        since = parked.first_parked if parked is not None else self._clock.now()
        return self._clock.now() - since < timedelta(seconds=self._patience.parked_for)

    async def park(self, task: Task, outcome: Outcome, tally: Tally) -> None:
        """Durably; `LogUnavailable`. What it has of progress on the log goes: it is not in progress any more."""
        before, now = self.get(task.task_id), self._clock.now()
        rounds = before.rounds + 1 if before is not None else 1
        record = make_parked(
            task, outcome, tally, self._agent, now, rounds=rounds,
            first_parked=before.first_parked if before is not None else now,
            not_before=now + timedelta(seconds=self._wait(rounds)),
        )  # fmt: skip
        retry, status = topics.retry(self._region), topics.status(self._region)
        await self._log.append(
            [Append(retry, record.key, codec.encode(record)), Append(status, task.task_id, None)]
        )
        LOG.warning(
            "task is parked", action="task_parked", task=task.task_id, rule=task.rule.name, rounds=rounds,
            destination=record.destination, error=record.error.message, not_before=record.not_before.isoformat(),
        )  # fmt: skip

    async def supersede(self, task: Task) -> None:
        """End the older ones that would write what `task`, which has ended or is parked itself, was about."""
        for old in [one for one in self._parked.values() if _is_older(one, task)]:
            await self._end(old, skipped(SUPERSEDED, "a newer push or deletion of this tag came"))

    async def run(self, lanes: Lanes) -> None:
        """Put what is due into the lanes, for ever."""
        while True:
            try:
                for parked in list(self._due()):
                    await self._begin(parked, lanes)
            except LogUnavailable as error:
                LOG.warning("parked tasks wait for the log", action="log_away", error=str(error))
            await self._clock.sleep(self._patience.look_at_parked)

    def _due(self) -> Iterator[Parked]:
        now = self._clock.now()
        for parked in sorted(self._parked.values(), key=lambda one: one.not_before):
            if len(self._running) >= _AT_ONCE:
                return
            waits = parked.not_before > now and parked.execution_id not in self._stops
            if not waits and parked.task_id not in self._running and self._is_ours(parked, now):
                yield parked

    def _is_ours(self, parked: Parked, now: datetime) -> bool:
        if parked.agent == self._agent:
            return True
        alive = self._living.names(now)
        return parked.agent not in alive and self._agent == min(alive | {self._agent})

    async def _begin(self, parked: Parked, lanes: Lanes) -> None:
        found = [
            task for task in match(parked.event, self._state, self._region) if task.task_id == parked.task_id
        ]
        if not found:
            await self._end(parked, skipped(FILTERED, "its rule is gone, or does not want it any more"))
        elif not lanes.is_busy(found[0]):  # what is newer ends it
            self._running.add(parked.task_id)
            lanes.put(found[0], lambda: self._running.discard(parked.task_id))

    async def _end(self, parked: Parked, outcome: Outcome) -> None:
        await complete_parked(parked, outcome, self._clock.now(), self._log)

    def _wait(self, rounds: int) -> float:
        """Seconds, doubled each round, and up to a quarter less."""
        longest: float = min(
            self._patience.longest_park, self._patience.first_park * 2 ** min(rounds - 1, 30)
        )
        return longest * (1 - self._random() / 4)


def _is_older(parked: Parked, task: Task) -> bool:
    same = (
        parked.by == task.rule.name
        and parked.destination_place == task.destination.name
        and (parked.repository, parked.destination_repository)
        == (task.repository, task.destination_repository)
        and parked.tag == task.tag
        and (task.tag is not None or parked.event.digest == task.digest)
    )
    newer = task.event.time > parked.event.time and (not task.is_bulk or parked.event.part_of is not None)
    return same and newer and parked.task_id != task.task_id and not task.is_dry_run
