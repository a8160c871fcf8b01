"""The retry: bounds of the waits, jitter, throttling, and the loops that wait."""

from datetime import UTC, datetime

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import Denied, LogError, LogUnavailable, RegmeshError, Throttled, Unreachable
from mesh.retry import Backoff, Retries, RetryLoop, RetryPolicy, call_with_retries, until_log_available
from schemas.completions import Side
from tests.support.manual_clock import ManualClock

UNREACHABLE = Unreachable("no answer", side=Side.SOURCE)
DENIED = Denied("no", side=Side.SOURCE)

seconds = st.floats(min_value=0.001, max_value=3600)
draws = st.floats(min_value=0, max_value=1, exclude_max=True)


def throttled(retry_after: float | None) -> Throttled:
    return Throttled("slower", side=Side.SOURCE, retry_after=retry_after)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


class Operation:
    """Raises one error after the other, then returns what it was called."""

    def __init__(self, *errors: RegmeshError) -> None:
        self.calls = 0
        self._errors = iter(errors)

    async def __call__(self) -> str:
        self.calls += 1
        if (error := next(self._errors, None)) is not None:
            raise error
        return "done"


@given(first=seconds, longest=seconds, jitter=draws, failures=st.integers(1, 10_000), draw=draws)
def test_a_wait_stays_within_its_bounds(
    first: float, longest: float, jitter: float, failures: int, draw: float
) -> None:
    backoff = Backoff(first, longest, jitter)
    ceiling = min(longest, first * 2.0 ** min(failures - 1, 40))
    assert ceiling * (1 - jitter) <= backoff.wait(failures, lambda: draw) <= ceiling <= longest


@given(first=seconds, longest=seconds, failures=st.integers(1, 100))
def test_waits_never_shrink_without_jitter(first: float, longest: float, failures: int) -> None:
    backoff = Backoff(first, longest, jitter=0)
    assert backoff.wait(failures, lambda: 0.9) <= backoff.wait(failures + 1, lambda: 0.1)


def test_clients_that_failed_together_wait_differently() -> None:
    backoff = Backoff(first=1.0, longest=8.0)
    assert backoff.wait(2, lambda: 0.1) != backoff.wait(2, lambda: 0.2)


@given(attempts=st.integers(1, 50))
def test_there_is_one_wait_fewer_than_attempts(attempts: int) -> None:
    assert len(list(Backoff(1.0, 8.0).waits(attempts, lambda: 0.5))) == attempts - 1


@given(retry_after=st.none() | st.floats(min_value=0, max_value=1e6))
def test_a_throttled_wait_follows_the_server_within_reason(retry_after: float | None) -> None:
    policy = RetryPolicy(backoff=Backoff(0.5, 8.0), longest_throttled=900.0)
    wait = policy.throttle_wait(retry_after)
    assert 0.1 <= wait <= 900.0
    if retry_after is None:
        assert wait == 8.0
    elif 0.1 <= retry_after <= 900.0:
        assert wait == retry_after


def test_being_throttled_costs_no_attempt_until_the_limit() -> None:
    retries = Retries(RetryPolicy(attempts=2, longest_throttled=100.0), lambda: 0.0)
    assert [retries.wait_after(throttled(60)) for _ in range(2)] == [60, 60]
    assert retries.wait_after(throttled(60)) == 0.5  # now it counts as a failure
    assert retries.wait_after(throttled(60)) is None


async def test_a_call_is_repeated_until_it_succeeds(clock: ManualClock) -> None:
    call = Operation(UNREACHABLE, throttled(7), UNREACHABLE)
    policy = RetryPolicy(attempts=3, backoff=Backoff(first=1.0, longest=8.0))
    assert await call_with_retries(call, policy, clock=clock, random=lambda: 0.0) == "done"
    assert (call.calls, clock.monotonic()) == (4, 1 + 7 + 2)


async def test_a_call_ends_with_its_last_error_when_no_attempt_is_left(clock: ManualClock) -> None:
    call = Operation(*[UNREACHABLE] * 9)
    with pytest.raises(Unreachable):
        await call_with_retries(call, RetryPolicy(attempts=3), clock=clock, random=lambda: 0.5)
    assert call.calls == 3


async def test_a_call_that_no_attempt_can_help_is_not_repeated(clock: ManualClock) -> None:
    call = Operation(DENIED)
    with pytest.raises(Denied):
        await call_with_retries(call, RetryPolicy(attempts=3), clock=clock, random=lambda: 0.5)
    assert (call.calls, clock.monotonic()) == (1, 0)


async def test_a_loop_waits_longer_after_each_failure_until_it_is_reset(clock: ManualClock) -> None:
    loop = RetryLoop("step", clock, lambda: 0.0, Backoff(first=1.0, longest=3.0), topic="t")
    waits = []
    with structlog.testing.capture_logs() as lines:
        for reset in (False, False, False, True):
            loop.reset() if reset else None
            before = clock.monotonic()
            await loop.wait(LogUnavailable("away"))
            waits.append(clock.monotonic() - before)
    assert waits == [1, 2, 3, 1]
    assert {(line["action"], line["topic"], line["code"]) for line in lines} == {
        ("step_waits", "t", "log_unavailable")
    }


async def test_waiting_for_the_log_passes_on_what_waiting_cannot_help(clock: ManualClock) -> None:
    away = Operation(*[LogUnavailable("away")] * 5)
    assert await until_log_available(away, clock) == "done"
    assert (away.calls, clock.monotonic()) == (6, 5)
    with pytest.raises(LogError, match="no such topic"):
        await until_log_available(Operation(LogError("no such topic")), clock)
