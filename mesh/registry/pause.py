"""The pause of one registry after a 429: its Retry-After applies to all requests, not only to the one refused.

A request during a short pause waits for its end, so that running transfers continue. During a long pause it fails with
the remaining time, as if the registry had answered 429 again: its caller can wait, and can be cancelled meanwhile.
"""

from collections.abc import Callable

from mesh.clock import Clock
from mesh.errors import Throttled
from schemas.completions import Side

_LONGEST_WAIT = 10.0  # seconds; less than the time-out of a place's health check
_JITTER = 0.25  # largest share added to a wait, so that requests do not all return at the same moment


class Pause:
    """The pause of one registry. It ends by itself."""

    def __init__(self, clock: Clock, random: Callable[[], float]) -> None:
        self._clock, self._random = clock, random
        self._until = clock.monotonic()

    def extend(self, seconds: float) -> None:
        """Pauses for `seconds` from now, unless the pause already lasts longer."""
        self._until = max(self._until, self._clock.monotonic() + seconds)

    async def wait(self, name: str, side: Side) -> None:
        """Returns when a request may be sent.

        Raises:
            Throttled: More than 10 seconds of the pause are left.
        """
        left = self._until - self._clock.monotonic()
        if left > _LONGEST_WAIT:
            text = f"{name}: it asked for a pause of which {left:.0f} s are left"
            raise Throttled(text, side=side, retry_after=left)
        if left > 0:
            await self._clock.sleep(left * (1 + _JITTER * self._random()))
