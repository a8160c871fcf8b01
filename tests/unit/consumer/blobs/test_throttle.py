"""Speed limits: what may pass in any stretch of time, whatever the pieces and however the limit changes."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from consumer.blobs.throttle import WINDOW_SECONDS, Bucket

RATES = st.integers(1024, 10_000_000)
ARRIVALS = st.lists(st.tuples(st.floats(0, 5), st.integers(1, 100_000)), min_size=1, max_size=60)


def passing(bucket: Bucket, arrivals, rate: int) -> list[tuple[float, int]]:
    """When each piece went on, of pieces that came so many seconds after each other."""
    now, passed = 0.0, []
    for gap, size in arrivals:
        now += gap
        passed.append((now + bucket.take(size, rate, now), size))
    return passed


@given(rate=RATES, arrivals=ARRIVALS)
def test_no_stretch_of_time_sees_more_than_its_share(rate: int, arrivals) -> None:
    passed = passing(Bucket(), arrivals, rate)
    for first in range(len(passed)):
        went = 0
        for at, size in passed[first:]:
            went += size
            allowed = rate * (at - passed[first][0] + WINDOW_SECONDS) + passed[first][1]
            assert went <= allowed * (1 + 1e-9) + 1e-6


@given(rate=RATES, arrivals=ARRIVALS)
def test_they_go_in_the_order_in_which_they_came(rate: int, arrivals) -> None:
    passed = [at for at, _ in passing(Bucket(), arrivals, rate)]
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(passed))


@given(rate=RATES, sizes=st.lists(st.integers(1, 100_000), min_size=2, max_size=60))
def test_what_is_asked_for_at_once_takes_as_long_as_the_rate_says(rate: int, sizes: list[int]) -> None:
    passed = passing(Bucket(), [(0.0, size) for size in sizes], rate)
    assert passed[-1][0] >= sum(sizes) / rate - WINDOW_SECONDS - 1e-6
    assert passed[-1][0] <= sum(sizes) / rate + 1e-6


@given(before=RATES, after=RATES, size=st.integers(1, 10_000_000))
def test_a_new_limit_holds_for_what_is_still_waiting(before: int, after: int, size: int) -> None:
    bucket = Bucket()
    first = bucket.take(size, before, 0.0)
    second = bucket.take(1024, after, 0.0)
    assert abs(second - (first * before + 1024) / after) <= 1e-6 * max(1.0, second)


def test_time_that_was_not_used_is_made_up_for_a_moment_only() -> None:
    bucket = Bucket()
    assert bucket.take(1000, 1000, 100.0) == 1.0 - WINDOW_SECONDS
    assert bucket.take(1000, 1000, 10_000.0) == 1.0 - WINDOW_SECONDS
