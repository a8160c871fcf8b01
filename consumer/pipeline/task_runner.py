"""The life of one task: begun on the log, tried until it ends, its end on the log before anybody calls it done."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import TypeVar

import structlog

from consumer.blobs.copy_blobs import BlobCopier
from consumer.deletion import after_copy
from consumer.deletion.delete import Deletion, delete
from consumer.deletion.rate_limit import DeletionRateLimit
from consumer.image.admission import Admission
from consumer.image.estimate import Counted
from consumer.image.job import Job
from consumer.image.replicate import replicate
from consumer.image.subjects import Subjects
from consumer.pipeline.attempts import until_it_ends
from consumer.pipeline.complete import complete
from consumer.pipeline.heartbeat import Reporter
from consumer.pipeline.in_progress import InProgressTasks
from consumer.pipeline.park import Parking
from consumer.pipeline.retry_policy import Patience
from consumer.places import Places
from consumer.progress import ExecutionStopped, Phase, TaskRun
from consumer.task import (
    ALREADY_GONE,
    ALREADY_THERE,
    NOT_HELD,
    SUPERSEDED,
    NotAdmitted,
    Outcome,
    Task,
    skipped,
)
from mesh.clock import Clock
from mesh.errors import LogUnavailable
from mesh.log.port import Log
from mesh.metrics import Metrics
from schemas.completions import Completion, Operation, Side, Status

LOG = structlog.get_logger()

_LOG_AGAIN_SECONDS = 1.0
_LAST_WORDS_SECONDS = 5.0

T = TypeVar("T")


class Worker:
    """Runs tasks, one call each. What runs now is in `running`, an untagged push only when it proved to be a task."""

    def __init__(
        self,
        *,
        log: Log,
        places: Places,
        copier: BlobCopier,
        reporter: Reporter,
        begun: InProgressTasks,
        admission: Admission,
        parking: Parking,
        patience: Patience,
        clock: Clock,
        metrics: Metrics,
        random: Callable[[], float],
    ) -> None:
        self._log, self._places, self._copier = log, places, copier
        self._reporter, self._in_progress, self._patience = reporter, begun, patience
        self._admission, self._parking = admission, parking
        self._clock, self._metrics, self._random = clock, metrics, random
        self._subjects, self._bursts, self._counted = Subjects(), DeletionRateLimit(), Counted()
        self._running: dict[str, TaskRun] = {}

    @property
    def running(self) -> Sequence[TaskRun]:
        return tuple(
            it for it in self._running.values() if it.task.tag is not None or it.progress.in_progress
        )

    async def run(self, run: TaskRun) -> None:
        """Raises nothing but its cancellation: what goes wrong is the task's end."""
        task, progress = run.task, run.progress
        self._running[task.task_id] = run
        self._metrics.running_tasks.labels(task.destination.name).inc()
        parked, failed = self._parking.get(task.task_id), self._parking.failed(task)
        had_begun = (
            parked.operation if parked is not None and parked.begun else self._in_progress.get(task.task_id)
        )
        progress.attempts = failed.attempts + 1 if failed is not None else progress.attempts
        try:
            outcome = await self._to_its_end(run, had_begun)
            if (deletion := after_copy.deletion_of(task, outcome)) is not None:
                run, outcome = await self._instead(run, outcome, deletion, had_begun)
            run.control.phase = Phase.ENDING
            if self._parking.wants(run.task, outcome):
                await _whole(self._park(run, outcome))
            elif not outcome.is_untold or failed is not None:
                await _whole(self._end(run, outcome))
            else:
                await _whole(self._patiently(lambda: self._parking.forget(run.task)))
        finally:
            self._running.pop(task.task_id, None)
            self._metrics.running_tasks.labels(task.destination.name).dec()

    async def supersede(self, run: TaskRun) -> None:
        """End what only waits, and what a newer task makes needless. Raises nothing but its cancellation."""
        run.control.phase = Phase.ENDING
        outcome = skipped(SUPERSEDED, "a newer push of this tag came while this one waited for its turn")
        if run.control.is_stopped():
            stopped = ExecutionStopped("the execution was stopped")
            outcome = Outcome(Status.STOPPED, None, stopped.as_task_error())
        await _whole(self._end(run, outcome))

    async def _to_its_end(self, run: TaskRun, had_begun: Operation | None) -> Outcome:
        """`had_begun`: what an earlier try of it, that was cut, had begun to do."""
        outcome = await until_it_ends(
            run, lambda resend: self._try(run, resend=resend), patience=self._patience,
            clock=self._clock, metrics=self._metrics, random=self._random,
        )  # fmt: skip
        run.progress.in_progress |= had_begun == run.task.operation
        return _as_our_own_work(outcome) if run.progress.in_progress else outcome

    async def _instead(
        self, copy: TaskRun, copied: Outcome, deletion: Task, had_begun: Operation | None
    ) -> tuple[TaskRun, Outcome]:
        """The deletion that a copy became, and how it ended; the copy and its end where there was nothing to do."""
        progress, run = copy.progress, replace(copy, task=deletion)
        digest, was_in_progress, progress.in_progress = progress.digest, progress.in_progress, False
        self._running[deletion.task_id] = run
        outcome = await self._to_its_end(run, had_begun)
        if (end := after_copy.stays(copied, outcome, digest)) is not None:
            progress.in_progress = was_in_progress
            return copy, end
        return run, outcome

    async def _try(self, run: TaskRun, *, resend: bool) -> Outcome:
        task, progress = run.task, run.progress
        source = self._places.registry(task.source, Side.SOURCE)
        destination = self._places.registry(task.destination, Side.DESTINATION, task.chain)

        async def admit(one: Task) -> None:
            await self._patiently(lambda: self._admission.check(one, run.control))

        async def begin() -> None:
            await admit(task)
            if not progress.in_progress:
                await self._patiently(lambda: self._reporter.progress([run]))
                progress.in_progress = True

        job = Job(
            run, source, destination, self._copier, self._subjects, self._counted, self._clock, begin
        )  # fmt: skip
        try:
            run.control.raise_if_stopped()
            if task.tag is not None:  # an untagged push is a task only when it proves to be one
                await admit(task)
            if task.operation == "delete":
                return await delete(Deletion(job, admit, self._bursts))
            return await replicate(job, resend=resend)
        except NotAdmitted as error:
            return Outcome(Status.SKIPPED, progress.digest, error.refusal)
        except ExecutionStopped as error:
            return Outcome(Status.STOPPED, progress.digest, error.as_task_error())

    async def _end(self, run: TaskRun, outcome: Outcome) -> None:
        task = run.task
        self._running.pop(
            task.task_id, None
        )  # no progress from here on: it would stand for ever over the tombstone
        await self._reporter.written()
        was_parked = await self._parking.is_parked(task)
        completion = await self._patiently(
            lambda: complete(run, outcome, self._clock.now(), self._log, was_parked=was_parked)
        )
        self._tell(completion)
        await self._patiently(lambda: self._parking.supersede(task))

    async def _park(self, run: TaskRun, outcome: Outcome) -> None:
        self._running.pop(run.task.task_id, None)
        await self._reporter.written()
        await self._patiently(lambda: self._parking.park(run, outcome))
        await self._patiently(lambda: self._parking.supersede(run.task))

    async def _patiently(self, write: Callable[[], Awaitable[T]]) -> T:
        """The log may be away for long; no task fails for that."""
        while True:
            try:
                return await write()
            except LogUnavailable as error:
                LOG.warning("a task waits for the log", action="log_away", error=str(error))
                await self._clock.sleep(_LOG_AGAIN_SECONDS)

    def _tell(self, completion: Completion) -> None:
        self._metrics.tasks.labels(completion.by, completion.status).inc()
        if completion.status is Status.SUCCEED:
            self._metrics.lag_seconds.labels(completion.by).observe(completion.lag_ms / 1000)
        LOG.info(
            "task", action="task_ended", task=completion.task_id, rule=completion.by, status=completion.status,
            source=completion.source, destination=completion.destination, digest=completion.digest,
            rebuilt_from=completion.rebuilt_from, bytes=completion.bytes_transferred,
            skipped=completion.bytes_skipped, attempts=completion.attempts,
            lag_ms=completion.lag_ms, error=completion.error.model_dump(mode="json") if completion.error else None,
        )  # fmt: skip


def _as_our_own_work(outcome: Outcome) -> Outcome:
    """Found so already by a task that had begun to bring it about: an earlier try did, and was cut before it knew."""
    if outcome.error is not None and outcome.error.code in (ALREADY_THERE, ALREADY_GONE, NOT_HELD):
        return replace(outcome, status=Status.SUCCEED, error=None)
    return outcome


async def _whole(writing: Coroutine[None, None, None]) -> None:
    """Not cut in between: when we are cancelled, the write gets a last moment, and then we are."""
    task = asyncio.ensure_future(writing)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=_LAST_WORDS_SECONDS)
        task.cancel()
        raise
