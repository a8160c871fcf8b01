"""Runs one task from its lane to the log: ownership lock, admission, attempts, then park or complete."""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import structlog

from consumer.deletion import after_copy
from consumer.deletion.delete import Deletion, delete
from consumer.deletion.rate_limit import DeletionRateLimit
from consumer.image import left_out
from consumer.image.admission import Stage
from consumer.image.job import Job, Services
from consumer.image.replicate import replicate
from consumer.image.tag_owners import TagOwners
from consumer.pipeline import late_write
from consumer.pipeline.attempts import attempt_until_end
from consumer.pipeline.complete import complete
from consumer.pipeline.heartbeat import Reporter
from consumer.pipeline.park import Parking
from consumer.pipeline.region_status import RegionStatus
from consumer.ports import AgentPorts
from consumer.progress import ExecutionStopped, Phase, TaskRun
from consumer.task import (
    ALREADY_GONE,
    ALREADY_THERE,
    NOT_HELD,
    REFERRERS_LEFT_OUT,
    SUPERSEDED,
    NotAdmitted,
    Outcome,
    Task,
    skipped,
)
from mesh.errors import AbsenceUnconfirmed, ServerFault, Unreachable
from mesh.retry import RetryPolicy, until_log_available
from schemas.completions import Completion, Operation, Side, Status
from schemas.parked import Parked

LOG = structlog.get_logger()

_OF_PROXIES = frozenset({ServerFault.code, AbsenceUnconfirmed.code})
_LAST_WRITE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _History:
    """What the log holds of earlier runs of a task."""

    failed: Parked | None  # its last run was parked because it failed
    interrupted: Operation | None  # an earlier run may have written this at the destination
    was_cut: bool = False  # that run did not end by itself, so a write of it may land late


class TaskRunner:
    """Runs tasks, one call of `run` each."""

    def __init__(
        self,
        ports: AgentPorts,
        services: Services,
        *,
        owners: TagOwners,
        status: RegionStatus,
        reporter: Reporter,
        parking: Parking,
        retry_policy: RetryPolicy,
    ) -> None:
        self._ports, self._services, self._owners = ports, services, owners
        self._status, self._reporter, self._parking = status, reporter, parking
        self._retry_policy = retry_policy
        self._rate_limit = DeletionRateLimit()
        self._running: dict[str, TaskRun] = {}

    @property
    def running(self) -> Sequence[TaskRun]:
        """Returns what runs now; an untagged push only once it has proved to be a task."""
        return tuple(
            run for run in self._running.values() if run.task.tag is not None or run.progress.in_progress
        )

    async def run(self, run: TaskRun) -> None:
        """Runs a task to its end and writes that to the log. Raises only its cancellation: errors are outcomes."""
        async with self._owners.lock(run.task):
            with self._listed_as_running(run):
                history = self._history(run.task)
                if history.failed is not None:
                    run.progress.attempts = history.failed.attempts + 1
                run, outcome = await self._outcome(run, history)
                run.control.phase = Phase.ENDING
                await _uncut(self._park_or_complete(run, outcome, history))

    async def supersede(self, run: TaskRun) -> None:
        """Ends a queued task that a newer one makes needless. Raises only its cancellation."""
        run.control.phase = Phase.ENDING
        outcome = skipped(SUPERSEDED, "a newer push of this tag came while this one was queued")
        if run.control.is_stopped():
            error = ExecutionStopped("the execution was stopped").as_task_error()
            outcome = Outcome(Status.STOPPED, None, error)
        if self._history(run.task).was_cut:
            await self._look_again(run.task)
        await _uncut(self._complete(run, outcome))

    @contextmanager
    def _listed_as_running(self, run: TaskRun) -> Iterator[None]:
        gauge = self._ports.metrics.running_tasks.labels(run.task.destination.name)
        self._running[run.task.task_id] = run
        gauge.inc()
        try:
            yield
        finally:
            self._running.pop(run.task.task_id, None)
            gauge.dec()

    def _history(self, task: Task) -> _History:
        parked, marked = self._parking.get(task.task_id), self._status.operation_in_progress(task.task_id)
        begun = parked.operation if parked is not None and parked.begun else None
        was_cut = marked is not None or (begun is not None and parked is not None and parked.is_active)
        return _History(self._parking.failed(task), begun or marked, was_cut)

    async def _outcome(self, run: TaskRun, history: _History) -> tuple[TaskRun, Outcome]:
        """Runs the task, and the deletion that a copy becomes when the source lost its tag; returns which counts."""
        copied = await self._attempts(run, history)
        deletion = after_copy.deletion_of(run.task, copied)
        if deletion is None:
            return run, copied
        progress, delete_run = run.progress, replace(run, task=deletion)
        digest, was_in_progress, progress.in_progress = progress.digest, progress.in_progress, False
        self._running[deletion.task_id] = delete_run
        deleted = await self._attempts(delete_run, history)
        if (outcome := after_copy.outcome_of_copy(copied, deleted, digest)) is not None:
            progress.in_progress = was_in_progress
            return run, outcome
        return delete_run, deleted

    async def _attempts(self, run: TaskRun, history: _History) -> Outcome:
        outcome = await attempt_until_end(
            run, partial(self._attempt, run), policy=self._retry_policy, ports=self._ports
        )
        run.progress.in_progress |= history.interrupted == run.task.operation
        return _as_own_work(run, outcome) if run.progress.in_progress else outcome

    async def _attempt(self, run: TaskRun, resend: bool) -> Outcome:
        places, task = self._ports.places, run.task
        source = places.registry(task.source, Side.SOURCE)
        destination = places.registry(task.destination, Side.DESTINATION, task.chain)
        job = Job(run, source, destination, self._services)
        try:
            run.control.raise_if_stopped()
            await job.admit(Stage.START)
            if task.operation == "delete":
                return await delete(Deletion(job, self._rate_limit))
            return left_out.reported(job, await replicate(job, resend=resend or task.resends))
        except NotAdmitted as error:
            return Outcome(Status.SKIPPED, run.progress.digest, error.refusal)
        except ExecutionStopped as error:
            return Outcome(Status.STOPPED, run.progress.digest, error.as_task_error())

    async def _park_or_complete(self, run: TaskRun, outcome: Outcome, history: _History) -> None:
        self._report_unreachable(run.task, outcome)
        look = history.failed if history.failed is not None and history.failed.is_look else None
        if look is not None and late_write.found_nothing(outcome) and not run.progress.in_progress:
            await self._stop_reporting(run)
            await self._look_again(run.task, look.rounds + 1)
            return
        if history.was_cut or run.progress.unanswered_write:
            await self._look_again(run.task)
        if self._parking.wants(run.task, outcome):
            await self._park(run, outcome)
        elif outcome.is_unreported and history.failed is None:
            await until_log_available(partial(self._parking.forget, run.task), self._ports.clock)
        else:
            await self._complete(run, outcome)

    async def _look_again(self, task: Task, number: int = 1) -> None:
        await until_log_available(partial(self._parking.look_again, task, number), self._ports.clock)

    def _report_unreachable(self, task: Task, outcome: Outcome) -> None:
        """A registry that a task could not reach is shown as failing at once, and not only after its next check.

        One that answers with an error of a proxy is checked soon.
        """
        sides = {Side.SOURCE: task.source, Side.DESTINATION: task.destination}
        error = outcome.error
        if error is not None and error.code == Unreachable.code and error.side in sides:
            self._ports.places.found_unreachable(sides[error.side], error.message)
        elif error is not None and error.code in _OF_PROXIES and error.side in sides:
            self._ports.places.suspect(sides[error.side])

    async def _park(self, run: TaskRun, outcome: Outcome) -> None:
        await self._stop_reporting(run)
        await until_log_available(partial(self._parking.park, run, outcome), self._ports.clock)
        await until_log_available(partial(self._parking.supersede, run.task), self._ports.clock)

    async def _complete(self, run: TaskRun, outcome: Outcome) -> None:
        await self._stop_reporting(run)
        was_parked = await self._parking.is_parked(run.task)
        ports = self._ports
        completion = await until_log_available(
            lambda: complete(run, outcome, ports.clock.now(), ports.log, was_parked=was_parked), ports.clock
        )
        self._report(completion)
        holds = outcome.holds or outcome.status is Status.SUCCEED
        await until_log_available(partial(self._parking.supersede, run.task, holds=holds), self._ports.clock)

    async def _stop_reporting(self, run: TaskRun) -> None:
        """No progress record may follow the tombstone of the task's end: it would stay for ever."""
        self._running.pop(run.task.task_id, None)
        await self._reporter.settled()

    def _report(self, completion: Completion) -> None:
        self._ports.metrics.tasks.labels(completion.by, completion.status).inc()
        if completion.status is Status.SUCCEED:
            self._ports.metrics.lag_seconds.labels(completion.by).observe(completion.lag_ms / 1000)
        LOG.info(
            "task", action="task_ended", task=completion.task_id, rule=completion.by, status=completion.status,
            source=completion.source, destination=completion.destination, digest=completion.digest,
            rebuilt_from=completion.rebuilt_from, bytes=completion.bytes_transferred,
            skipped=completion.bytes_skipped, attempts=completion.attempts,
            lag_ms=completion.lag_ms, error=completion.error.model_dump(mode="json") if completion.error else None,
        )  # fmt: skip


def _as_own_work(run: TaskRun, outcome: Outcome) -> Outcome:
    """A task in progress that finds nothing left to do has succeeded: an interrupted run of it did the work."""
    if (error := outcome.error) is None or error.code not in (ALREADY_THERE, ALREADY_GONE, NOT_HELD):
        return outcome
    has_all = run.progress.left_out.error is None
    left = None if has_all else error.model_copy(update={"code": REFERRERS_LEFT_OUT})
    return replace(outcome, status=Status.SUCCEED, error=left)


async def _uncut(write: Coroutine[None, None, None]) -> None:
    """Awaits a write of a task's end. When the caller is cancelled, the write has a moment left to finish."""
    task = asyncio.ensure_future(write)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=_LAST_WRITE_SECONDS)
        task.cancel()
        raise
