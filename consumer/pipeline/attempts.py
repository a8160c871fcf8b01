"""Attempts a task until it ends: waits between the attempts, and what a registry asks for when it throttles."""

from collections.abc import Awaitable, Callable
from contextlib import nullcontext

import structlog

from consumer.ports import AgentPorts
from consumer.progress import TaskControl, TaskRun
from consumer.task import Outcome
from mesh.clock import Clock
from mesh.errors import MissingParts, RegmeshError, Throttled
from mesh.retry import Retries, RetryPolicy
from schemas.completions import Side, Status

LOG = structlog.get_logger()

_STOP_CHECK_SECONDS = 1.0  # between two checks whether a waiting task was stopped

Attempt = Callable[
    [bool], Awaitable[Outcome]
]  # takes whether to send again what the destination claims to have


async def attempt_until_end(
    run: TaskRun, attempt: Attempt, *, policy: RetryPolicy, ports: AgentPorts
) -> Outcome:
    """Returns the task's outcome; it is `Failed` when a further attempt cannot help or the policy allows none.

    An unexpected exception fails the task as well. It must not end the agent, which would meet it again with the
    same event each time it is started.
    """
    retries, resend = Retries(policy, ports.random), False
    earlier = run.progress.attempts - 1
    while True:
        try:
            return await attempt(resend)
        except RegmeshError as error:
            if (wait := retries.wait_after(error)) is None:
                return _failed(run, error, may_help_later=error.retryable)
            run.progress.attempts = earlier + retries.attempts
            resend = isinstance(error, MissingParts)
            ports.metrics.retries.labels(run.task.destination.name, error.code).inc()
            LOG.warning(
                "task will be attempted again", action="retry", task=run.task.task_id, code=error.code,
                side=error.side, error=str(error), wait_seconds=round(wait, 2),
            )  # fmt: skip
            async with run.control.yield_permit() if _may_yield(error) else nullcontext():
                await _sleep(wait, run.control, ports.clock)
        except Exception as error:
            LOG.exception("a bug ended a task", action="task_broken", task=run.task.task_id)
            bug = f"internal error ({type(error).__name__}); the agent's log has the traceback"
            return _failed(run, RegmeshError(bug), may_help_later=False)


def _failed(run: TaskRun, error: RegmeshError, *, may_help_later: bool) -> Outcome:
    return Outcome(Status.FAILED, run.progress.digest, error.as_task_error(), may_help_later=may_help_later)


def _may_yield(error: RegmeshError) -> bool:
    """Whether other tasks may use the permit during the wait.

    A source that throttles must not hold up what others send to the same destination. While the destination itself
    throttles, nobody can use the permit: keeping it, the other tasks wait without asking.
    """
    return isinstance(error, Throttled) and error.side is Side.SOURCE


async def _sleep(seconds: float, control: TaskControl, clock: Clock) -> None:
    """Ends early when the task's execution is stopped; the next attempt then ends the task."""
    while seconds > 0 and not control.is_stopped():
        await clock.sleep(min(seconds, _STOP_CHECK_SECONDS))
        seconds -= _STOP_CHECK_SECONDS
