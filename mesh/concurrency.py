"""Structured concurrency: run several coroutines, close several resources, and lock by key."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Generic, TypeVar

from mesh.clock import Clock

K = TypeVar("K", bound=Hashable)
S = TypeVar("S")
T = TypeVar("T")


async def close_all(*closers: Callable[[], Awaitable[object]]) -> None:
    """Calls the closers one after the other, each even if earlier ones fail or the caller is cancelled."""
    async with AsyncExitStack() as stack:
        for close in reversed(closers):
            stack.push_async_callback(close)


async def all_of(jobs: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Runs all jobs concurrently and returns their results in order.

    The first error cancels the other jobs and is raised as itself, not in an exception group.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(job) for job in jobs]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return [task.result() for task in tasks]


async def in_turns(items: Iterable[T], size: int = 50) -> AsyncIterator[T]:
    """Yields the items, and lets other tasks run after each `size` of them, so that a long list does not hold them up.

    What the caller reads may change at each of these points.
    """
    for number, item in enumerate(items, 1):
        yield item
        if number % size == 0:
            await asyncio.sleep(0)


async def map_concurrently(
    items: AsyncIterator[S], job: Callable[[S], Awaitable[T | None]], *, limit: int
) -> AsyncGenerator[T, None]:
    """Yields what `job` returns for each item, without None and in no order; at most `limit` jobs run at once.

    The first error ends it, and cancels the other jobs.
    """
    running = set[asyncio.Future[T | None]]()
    try:
        async for item in items:
            running.add(asyncio.ensure_future(job(item)))
            while len(running) >= limit:
                for one in await _take_finished(running):
                    yield one
        while running:
            for one in await _take_finished(running):
                yield one
    finally:
        for future in running:
            future.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _take_finished(running: set[asyncio.Future[T | None]]) -> list[T]:
    """Waits for one of the futures at least, removes the finished ones, and returns their results without None."""
    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    running -= done
    return [one for one in await asyncio.gather(*done) if one is not None]


async def wait_for_event(event: asyncio.Event, clock: Clock, timeout: float) -> None:
    """Returns when the event is set, and after `timeout` seconds at the latest."""
    waits = [asyncio.create_task(event.wait()), asyncio.create_task(clock.sleep(timeout))]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits:
            one.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


class KeyedLock(Generic[K]):
    """One lock for each key, kept in memory only while somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: dict[K, tuple[asyncio.Lock, int]] = {}  # with the number of holders and waiters

    def is_held(self, key: K) -> bool:
        """Returns whether somebody holds the key or waits for it."""
        return key in self._locks

    @asynccontextmanager
    async def hold(self, key: K) -> AsyncIterator[bool]:
        """Holds the key's lock. Yields whether this caller waited, as the work may be done by then."""
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield users > 0
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = (lock, users - 1)


async def finishes(work: Coroutine[None, None, object], stopping: asyncio.Event) -> bool:
    """Runs `work` to its end, or until `stopping` is set; returns whether it has ended. Raises what it raises."""
    task, stop = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    if task.cancelled():
        return False
    await task
    return True
