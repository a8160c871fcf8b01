"""Speed limits: of each rule and of each link between regions, over all transfers of this agent.

Limited transfers share a limit piece by piece, so none starves, and a changed limit applies from the next piece. They
have permits of their own, so that slow ones never take all permits from transfers without a limit.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from consumer.task import Task
from mesh.clock import Clock
from mesh.metrics import Metrics
from mesh.rules.state import MeshState

WINDOW_SECONDS = 0.25  # how much unused time may be made up for, and the longest time that one piece takes
_SMALLEST_PIECE = 1024  # bytes


@dataclass(slots=True)
class Bucket:
    """A token bucket that returns how long to wait. Pure.

    In any `t` seconds at most `rate * (t + WINDOW_SECONDS)` bytes and one piece pass.
    """

    free_at: float = 0.0  # when all accepted bytes will have passed
    rate: int = 0  # the rate that `free_at` was computed with

    def take(self, size: int, rate: int, now: float) -> float:
        """Accepts `size` bytes at `rate` bytes a second; returns the seconds until they may pass."""
        if self.rate != rate and self.free_at > now:
            self.free_at = now + (self.free_at - now) * self.rate / rate
        self.rate = rate
        self.free_at = max(self.free_at, now - WINDOW_SECONDS) + size / rate
        return max(0.0, self.free_at - now)


class Throttle:
    """The speed limits of one agent."""

    def __init__(self, *, state: MeshState, clock: Clock, metrics: Metrics, transfers: int) -> None:
        """Of all `transfers` at once, half may be limited ones, and a quarter those of one limit."""
        self._state, self._clock, self._metrics = state, clock, metrics
        self._buckets: defaultdict[str, Bucket] = defaultdict(Bucket)
        self._all_limited = asyncio.Semaphore(max(1, transfers // 2))
        quarter = max(1, transfers // 4)
        self._permits: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(quarter))

    @asynccontextmanager
    async def permit(self, task: Task) -> AsyncIterator[None]:
        """Holds a permit for a limited transfer; a task without a limit needs none."""
        async with AsyncExitStack() as stack:
            if names := [name for name, _ in self._limits(task)]:
                for name in names:
                    await stack.enter_async_context(self._permits[name])
                await stack.enter_async_context(self._all_limited)
            yield

    async def throttled(self, task: Task, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yields the chunks as fast as the task's limits permit, in smaller pieces where necessary."""
        async for chunk in chunks:
            at = 0
            while at < len(chunk):
                limits = list(self._limits(task))
                if not limits:
                    yield chunk[at:] if at else chunk
                    break
                longest = int(min(rate for _, rate in limits) * WINDOW_SECONDS)
                piece = chunk[at : at + max(_SMALLEST_PIECE, longest)]
                await self._wait(limits, len(piece))
                yield piece
                at += len(piece)

    def _limits(self, task: Task) -> Iterator[tuple[str, int]]:
        """Yields the current limits by name, in bytes a second."""
        declared = self._state.rule(task.rule.name)
        rule = declared.rule if declared is not None else task.rule
        if rule.speed is not None:
            yield f"rule/{rule.name}", rule.speed
        source, destination = task.source.region, task.destination.region
        region = self._state.region(source)
        for link in region.links if region is not None else ():
            if link.to == destination and link.speed is not None:
                yield f"link/{source}/{destination}", link.speed

    async def _wait(self, limits: list[tuple[str, int]], size: int) -> None:
        now = self._clock.monotonic()
        waits = {name: self._buckets[name].take(size, rate, now) for name, rate in limits}
        slowest = max(waits, key=lambda name: waits[name])
        if waits[slowest] > 0:
            self._metrics.speed_wait_seconds.labels(slowest).inc(waits[slowest])
            await self._clock.sleep(waits[slowest])
