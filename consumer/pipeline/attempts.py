"""Try a task until it ends: short waits between tries, the registry's own wish when it says one.

Being throttled is waiting, not failing: it costs time and no try.
"""

from collections.abc import Awaitable, Callable
from contextlib import nullcontext

import structlog

from consumer.pipeline.retry_policy import Patience
from consumer.progress import TaskControl, TaskRun
from consumer.task import Outcome
from mesh.clock import Clock
from mesh.errors import MissingParts, RegmeshError, Throttled
from mesh.metrics import Metrics
from mesh.retry import delays
from schemas.completions import Side, Status

log = structlog.get_logger()

_LOOK_SECONDS = 1.0  # between two looks whether a waiting task was stopped

Try = Callable[[bool], Awaitable[Outcome]]  # told whether to send again what the destination claims to have


async def until_it_ends(
    run: TaskRun,
    once: Try,
    *,
    patience: Patience,
    clock: Clock,
    metrics: Metrics,
    random: Callable[[], float],
) -> Outcome:
    """The task's outcome; errors become `Failed` when trying again cannot help or has not.

    So does what no edge translated: a mistake of ours costs the task that meets it, not the agent, which would meet it
    again with the same event as often as it is started.
    """
    task, progress, control = run.task, run.progress, run.control
    waits = delays(
        first=patience.first_wait, longest=patience.longest_wait, tries=patience.tries, random=random
    )
    throttled, resend = 0.0, False
    while True:
        try:
            return await once(resend)
        except RegmeshError as error:
            if isinstance(error, Throttled) and throttled < patience.longest_throttled:
                wait = error.retry_after if error.retry_after is not None else patience.longest_wait
                wait = min(max(wait, 0.1), patience.longest_throttled)
                throttled += wait
            elif error.retryable and (following := next(waits, None)) is not None:
                wait = following
                progress.attempts += 1
            else:
                return Outcome(
                    Status.FAILED, progress.digest, error.as_task_error(), may_help_later=error.retryable
                )
            resend = isinstance(error, MissingParts)
            metrics.retries.labels(task.destination.name, error.code).inc()
            log.warning(
                "task will be tried again",
                action="retry",
                task=task.task_id,
                code=error.code,
                side=error.side,
                error=str(error),
                wait_seconds=round(wait, 2),
            )
            async with control.yield_permit() if _may_yield(error) else nullcontext():
                await _pause(wait, control, clock)
        except Exception as error:
            log.exception("a mistake of ours ended a task", action="task_broken", task=task.task_id)
            told = RegmeshError(
                f"regmesh made a mistake ({type(error).__name__}); the agent's log has all of it"
            )
            return Outcome(Status.FAILED, progress.digest, told.as_task_error())


def _may_yield(error: RegmeshError) -> bool:
    """A source that wants to be left alone must not hold up what others send to the same destination.

    Of the destination itself nobody has any use for the permit: keeping it, the rest waits without asking.
    """
    return isinstance(error, Throttled) and error.side is Side.SOURCE


async def _pause(seconds: float, control: TaskControl, clock: Clock) -> None:
    """Ends early when the task's execution is stopped: the next try tells so."""
    while seconds > 0 and not control.is_stopped():
        await clock.sleep(min(seconds, _LOOK_SECONDS))
        seconds -= _LOOK_SECONDS
