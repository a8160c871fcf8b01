"""What one request's 429 asks of all that goes to the same registry: each would otherwise have to be told by itself.

A request that comes in a short pause waits for its end, so that what is on its way goes on. In a longer one it fails
with what is left, as if the registry had said so again: who sent it knows how to wait, and can be stopped meanwhile.
"""

from collections.abc import Callable

from mesh.clock import Clock
from mesh.errors import Throttled
from schemas.completions import Side

_LONGEST_HELD = 10.0  # seconds; less than a look at a place takes at most
_SPREAD = 0.25  # of the wait, at most, so that not all come back at one moment


class Pause:
    """Of one registry. It ends by itself."""

    def __init__(self, clock: Clock, random: Callable[[], float]) -> None:
        self._clock, self._random = clock, random
        self._until = clock.monotonic()

    def begin(self, seconds: float) -> None:
        """The registry asked for so much; an earlier, longer wish stands."""
        self._until = max(self._until, self._clock.monotonic() + seconds)

    async def over(self, name: str, side: Side) -> None:
        """Returns when a request may go out; `Throttled` when that is not soon."""
        left = self._until - self._clock.monotonic()
        if left > _LONGEST_HELD:
            text = f"{name}: it asked for a pause of which {left:.0f} s are left"
            raise Throttled(text, side=side, retry_after=left)
        if left > 0:
            await self._clock.sleep(left * (1 + _SPREAD * self._random()))
