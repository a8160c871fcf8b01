"""Retries: how long to wait before the next attempt, and the loops that wait. Time and randomness are ports."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import structlog

from mesh.clock import Clock
from mesh.errors import DatabaseUnavailable, LogError, LogUnavailable, RegmeshError, Throttled

T = TypeVar("T")
Random = Callable[[], float]  # draws numbers from [0, 1)

LOG = structlog.get_logger()

_LOG_RETRY_SECONDS = 1.0
_DOUBLINGS = 40  # enough for any ceiling; keeps 2**n small


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with jitter, so that clients that failed at the same time do not retry at the same time.

    Times are in seconds. `jitter` is the largest share of a wait that is randomly taken off.
    """

    first: float
    longest: float
    jitter: float = 0.5

    def wait(self, failures: int, random: Random) -> float:
        """Returns the wait after the given number of failures, counted from 1."""
        ceiling = min(self.longest, self.first * 2.0 ** min(failures - 1, _DOUBLINGS))
        return ceiling * (1 - self.jitter * random())

    def waits(self, attempts: int, random: Random) -> Iterator[float]:
        """Yields the waits between `attempts` attempts: `attempts - 1` of them."""
        return (self.wait(failures, random) for failures in range(1, attempts))


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often one operation is attempted, and how long it waits for a server that throttles it (429).

    Being throttled costs time and no attempt: `longest_throttled` bounds the sum of those waits, in seconds.
    """

    attempts: int = 3
    backoff: Backoff = Backoff(first=0.5, longest=8.0)
    longest_throttled: float = 900.0

    def throttle_wait(self, retry_after: float | None) -> float:
        """Returns the seconds to wait after one 429: `Retry-After` within bounds, or the longest backoff without it."""
        wait = retry_after if retry_after is not None else self.backoff.longest
        return min(max(wait, 0.1), self.longest_throttled)


class Retries:
    """Decides after each failure of one operation whether and when it is attempted again."""

    def __init__(self, policy: RetryPolicy, random: Random) -> None:
        self._policy = policy
        self._waits = policy.backoff.waits(policy.attempts, random)
        self._throttled = 0.0
        self.attempts = 1  # so far; a throttled attempt is not counted

    def wait_after(self, error: RegmeshError) -> float | None:
        """Returns the seconds to wait before the next attempt; None when `error` ends the operation."""
        if isinstance(error, Throttled) and self._throttled < self._policy.longest_throttled:
            wait = self._policy.throttle_wait(error.retry_after)
            self._throttled += wait
            return wait
        following = next(self._waits, None) if error.retryable else None
        self.attempts += following is not None
        return following


async def call_with_retries(
    call: Callable[[], Awaitable[T]], policy: RetryPolicy, *, clock: Clock, random: Random
) -> T:
    """Calls until `call` succeeds, and returns what it returns.

    Raises:
        RegmeshError: The last error, when it is not retryable or the policy allows no further attempt.
    """
    retries = Retries(policy, random)
    while True:
        try:
            return await call()
        except RegmeshError as error:
            if (wait := retries.wait_after(error)) is None:
                raise
        await clock.sleep(wait)


class RetryLoop:
    """Retries one step for ever: longer waits after each failure, the shortest again after a success."""

    def __init__(
        self,
        step: str,
        clock: Clock,
        random: Random,
        backoff: Backoff = Backoff(first=0.2, longest=15.0),
        **context: str,
    ) -> None:
        """`step` and `context` go into the log lines: the action is `<step>_waits`."""
        self._step, self._clock, self._random, self._backoff = step, clock, random, backoff
        self._context = context
        self._failures = 0

    async def wait(self, error: RegmeshError) -> None:
        """Logs the failure and sleeps before the next attempt."""
        self._failures += 1
        seconds = self._backoff.wait(self._failures, self._random)
        LOG.warning(
            "a step failed and is retried", action=f"{self._step}_waits",
            error=str(error), code=error.code, seconds=round(seconds, 1), **self._context,
        )  # fmt: skip
        await self._clock.sleep(seconds)

    def reset(self) -> None:
        """Forgets earlier failures."""
        self._failures = 0

    async def repeat(self, step: Callable[[], Awaitable[None]], every: float) -> None:
        """Runs `step` every `every` seconds until cancelled, also while the log or the database is unavailable."""
        while True:
            try:
                await step()
                self.reset()
                await self._clock.sleep(every)
            except (LogError, DatabaseUnavailable) as error:
                await self.wait(error)


async def until_log_available(call: Callable[[], Awaitable[T]], clock: Clock) -> T:
    """Calls `call` until the log is available, and returns its result."""
    while True:
        try:
            return await call()
        except LogUnavailable as error:
            LOG.warning("waiting for the log", action="log_away", error=str(error))
            await clock.sleep(_LOG_RETRY_SECONDS)
