"""How fast bytes may go: for each rule and each link of regions, over all transfers of this agent together.

Transfers that are limited take turns by the piece, so none starves, and a limit that is declared anew holds from the
next piece on. They share permits of their own, so that slow ones never take them all from those without a limit.
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

WINDOW_SECONDS = 0.25  # how much unused time is made up for, and how long one piece takes at most
_SMALLEST_PIECE = 1024  # bytes


@dataclass(slots=True)
class Bucket:
    """What may pass at so many bytes a second. Pure: it says how long to wait, and waits never itself.

    In any time of `t` seconds no more than `rate * (t + BURST_SECONDS)` bytes and one piece pass.
    """

    free_at: float = 0.0  # when all that was let in will have passed
    rate: int = 0  # at which that was reckoned

    def take(self, size: int, rate: int, now: float) -> float:
        """Seconds until `size` bytes may go on; they count as gone from then."""
        if self.rate != rate and self.free_at > now:
            self.free_at = now + (self.free_at - now) * self.rate / rate
        self.rate = rate
        self.free_at = max(self.free_at, now - WINDOW_SECONDS) + size / rate
        return max(0.0, self.free_at - now)


class Speeds:
    """The limits of one agent. What is not limited costs one look at what is declared."""

    def __init__(self, *, state: MeshState, clock: Clock, metrics: Metrics, transfers: int) -> None:
        """`transfers`: how many there may be at once; half of them may be limited, a quarter by one limit."""
        self._state, self._clock, self._metrics = state, clock, metrics
        self._buckets: defaultdict[str, Bucket] = defaultdict(Bucket)
        self._together = asyncio.Semaphore(max(1, transfers // 2))
        quarter = max(1, transfers // 4)
        self._permits: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(quarter))

    @asynccontextmanager
    async def turn(self, task: Task) -> AsyncIterator[None]:
        """A place among the limited transfers, before one of all; at once for a task without a limit."""
        async with AsyncExitStack() as stack:
            if names := [name for name, _ in self._limits(task)]:
                for name in names:
                    await stack.enter_async_context(self._permits[name])
                await stack.enter_async_context(self._together)
            yield

    async def paced(self, task: Task, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The chunks, as soon as the task's limits let them go, in pieces where they are large for that."""
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
        """By name, in bytes a second, as they are declared now."""
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
