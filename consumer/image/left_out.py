"""Referrers that cannot be copied: they delay the image by two attempts, are reported with its end, and no more."""

from dataclasses import replace

from consumer.image.job import Job
from consumer.task import REFERRERS_LEFT_OUT, Outcome
from mesh.errors import RegistryError, RegmeshError, Throttled, clean
from schemas.completions import TaskError

_ATTEMPTS_BEFORE_TAG = (
    2  # fail for an error that may end by itself, since the tag should come after what is about it
)


class ReferrersLeftOut(RegmeshError):
    """The image is there, and some of what is about it is not."""

    code = REFERRERS_LEFT_OUT
    retryable = True

    def __init__(self, message: str, cause: RegmeshError) -> None:
        super().__init__(message)
        self.side = cause.side


def leave_out(job: Job, error: RegistryError, count: int = 1) -> None:
    """Leaves out `count` referrers, or one list of them, because of the error.

    Raises:
        RegistryError: The error, when the task has to be attempted again before the image may come without them.
    """
    progress = job.progress
    if isinstance(error, Throttled) or (error.retryable and progress.attempts <= _ATTEMPTS_BEFORE_TAG):
        raise error
    progress.left_out.add(error, count)


def reported(job: Job, outcome: Outcome) -> Outcome:
    """Returns the outcome of an attempt, with what was left out of the referrers if the image is there.

    Raises:
        ReferrersLeftOut: Another attempt may copy them.
    """
    found = job.progress.left_out
    if found.error is None or not outcome.holds:
        return outcome
    message = f"the image is there without {found.count} of its referrers: {found.error}"
    if found.error.retryable:
        raise ReferrersLeftOut(message, found.error)
    code = REFERRERS_LEFT_OUT if outcome.error is None else outcome.error.code
    return replace(outcome, error=TaskError(code=code, side=found.error.side, message=clean(message)))
