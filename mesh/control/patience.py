"""Waiting for a part that is away: longer each time, told each time, given up never."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import structlog

from mesh.clock import Clock
from mesh.errors import DatabaseUnavailable, LogError, RegmeshError
from mesh.retry import delays

LOG = structlog.get_logger()

FIRST, LONGEST = 0.2, 15.0  # seconds
_GROWS_FOR = 10  # waits; after them each is the longest


class Patience:
    """One step's: `wait` after each failure, `relax` after each success."""

    def __init__(self, step: str, clock: Clock, random: Callable[[], float]) -> None:
        self._step, self._clock, self._random = step, clock, random
        self._waits = self._begin()

    async def wait(self, error: RegmeshError) -> None:
        seconds = next(self._waits, LONGEST)
        LOG.warning(
            "a step waits and tries again", action=f"{self._step}_waits",
            error=str(error), code=error.code, seconds=round(seconds, 1),
        )  # fmt: skip
        await self._clock.sleep(seconds)

    async def repeat(self, look: Callable[[], Awaitable[None]], every: float) -> None:
        """Until cancelled: `look`, then again `every` seconds, while the log and the database come and go."""
        while True:
            try:
                await look()
                self.relax()
                await self._clock.sleep(every)
            except (LogError, DatabaseUnavailable) as error:
                await self.wait(error)

    def relax(self) -> None:
        self._waits = self._begin()

    def _begin(self) -> Iterator[float]:
        return delays(first=FIRST, longest=LONGEST, tries=_GROWS_FOR, random=self._random)


async def first_of(bell: asyncio.Event, clock: Clock, seconds: float) -> None:
    """Return when the bell rings, and after `seconds` at the latest."""
    waits = [asyncio.create_task(bell.wait()), asyncio.create_task(clock.sleep(seconds))]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits:
            one.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
