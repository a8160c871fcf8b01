"""Speed limits: the bytes that pass in any time window, for all sizes of pieces and changes of the rate."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from consumer.blobs.throttle import WINDOW_SECONDS, Bucket

RATES = st.integers(1024, 10_000_000)
ARRIVALS = st.lists(st.tuples(st.floats(0, 5), st.integers(1, 100_000)), min_size=1, max_size=60)


def passing(bucket: Bucket, arrivals, rate: int) -> list[tuple[float, int]]:
    """Returns when each piece passed, of pieces that arrived at the given intervals."""
    now, passed = 0.0, []
    for gap, size in arrivals:
        now += gap
        passed.append((now + bucket.take(size, rate, now), size))
    return passed


@given(rate=RATES, arrivals=ARRIVALS)
def test_no_time_window_exceeds_the_rate(rate: int, arrivals) -> None:
    passed = passing(Bucket(), arrivals, rate)
    for first in range(len(passed)):
        went = 0
        for at, size in passed[first:]:
            went += size
            allowed = rate * (at - passed[first][0] + WINDOW_SECONDS) + passed[first][1]
            assert went <= allowed * (1 + 1e-9) + 1e-6


@given(rate=RATES, arrivals=ARRIVALS)
def test_pieces_pass_in_order(rate: int, arrivals) -> None:
    passed = [at for at, _ in passing(Bucket(), arrivals, rate)]
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(passed))


@given(rate=RATES, sizes=st.lists(st.integers(1, 100_000), min_size=2, max_size=60))
def test_concurrent_pieces_take_as_long_as_the_rate_requires(rate: int, sizes: list[int]) -> None:
    passed = passing(Bucket(), [(0.0, size) for size in sizes], rate)
    assert passed[-1][0] >= sum(sizes) / rate - WINDOW_SECONDS - 1e-6
    assert passed[-1][0] <= sum(sizes) / rate + 1e-6


@given(before=RATES, after=RATES, size=st.integers(1, 10_000_000))
def test_a_new_rate_applies_to_waiting_bytes(before: int, after: int, size: int) -> None:
    bucket = Bucket()
    first = bucket.take(size, before, 0.0)
    second = bucket.take(1024, after, 0.0)
    assert abs(second - (first * before + 1024) / after) <= 1e-6 * max(1.0, second)


def test_unused_time_is_made_up_for_only_within_the_window() -> None:
    bucket = Bucket()
    assert bucket.take(1000, 1000, 100.0) == 1.0 - WINDOW_SECONDS
    assert bucket.take(1000, 1000, 10_000.0) == 1.0 - WINDOW_SECONDS
