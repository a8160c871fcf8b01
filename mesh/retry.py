"""How long to wait before trying again: exponential, full jitter, bounded. Pure."""

from collections.abc import Callable, Iterator


def delays(*, first: float, longest: float, tries: int, random: Callable[[], float]) -> Iterator[float]:
    """The waits (seconds) between `tries` tries: `tries - 1` of them.

    Each is drawn between half and the whole of `first * 2**n`, cut at `longest`, so that many clients that
    failed together do not come back together. `random` gives numbers in [0, 1).
    """
    for attempt in range(tries - 1):
        ceiling = min(longest, first * 2**attempt)
        yield ceiling * (0.5 + 0.5 * random())
