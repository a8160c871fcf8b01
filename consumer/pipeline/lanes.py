"""Lanes: tasks of one repository and destination run in order, one at a time; lanes run side by side.

A destination has a number of permits, so that a slow one holds up only itself. A task that comes in behind another
with the same target supersedes it: the older one ends as soon as it looks. One that only waits for its turn ends at
once, so that however often a tag is pushed behind a copy that takes long, one task of it waits. A task that comes in
again (its partition went and came back) is the same one: it runs once, and all who put it in are told.

What a listing found has lanes and a few permits of its own, so that a push never queues up behind it. The two meet at a
target: only one of them writes it at a time, and a listing's task supersedes no push. Nor does
that of a fill supersede what a human asked for: it writes over less.
"""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Self

from consumer.progress import Phase, TaskControl, TaskProgress, TaskRun
from consumer.task import Task
from mesh.clock import Clock
from mesh.rules.stops import Stops


@dataclass(eq=False, slots=True)
class Entry:
    """A task in a lane, and whom to tell when it is done."""

    run: TaskRun
    turn: "_Turn"
    done: list[Callable[[], None]]
    is_over: bool = False

    @property
    def task(self) -> Task:
        """Returns the entry's task."""
        return self.run.task

    @property
    def may_end_unread(self) -> bool:
        """Whether it is known without a look at a registry that a newer one makes it needless.

        A referrer may prove to be no task, and a deletion has to see whether there is anything left to delete.
        """
        return self.task.operation == "copy" and not self.task.is_referrer


class Lanes:
    """Runs every task that is put in, or ends it as superseded; neither may raise, but for cancellation."""

    def __init__(
        self,
        run: Callable[[TaskRun], Awaitable[None]],
        *,
        supersede: Callable[[TaskRun], Awaitable[None]],
        stops: Stops,
        permits_per_destination: int,
        bulk_permits_per_destination: int = 2,
        clock: Clock,
    ) -> None:
        self._run, self._supersede = run, supersede
        self._stops, self._clock = stops, clock
        self._waiting: dict[tuple[str, ...], deque[Entry]] = {}
        self._entries: dict[tuple[str, str], Entry] = {}  # that are not over, by task and event
        self._latest: dict[tuple[bool, tuple[str, ...]], Entry] = {}  # by whether it is bulk, and target
        self._permits = _permits(permits_per_destination)
        self._bulk_permits = _permits(bulk_permits_per_destination)
        self._targets = _Targets()
        self._workers: set[asyncio.Task[None]] = set()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def put(self, task: Task, done: Callable[[], None]) -> Entry:
        """Queue a task; `done` is called when its end is on the log."""
        if (same := self._entries.get(key := (task.task_id, task.event.id))) is not None:
            same.done.append(done)
            return same
        entry = self._entries[key] = self._entry(task, done)
        for is_bulk in {True, task.is_bulk}:  # a push supersedes either, a listing's task only its like
            older = self._latest.get((is_bulk, task.target))
            if older is not None and (older.task.is_fill or not task.is_fill):
                self._make_way(older)
        self._latest[task.is_bulk, task.target] = entry
        lane = self._waiting.get(task.lane)
        if lane is not None:
            lane.append(entry)
            return entry
        self._waiting[task.lane] = deque([entry])
        self._begin(self._work(task.lane), "lane " + "/".join(task.lane))
        return entry

    def _entry(self, task: Task, done: Callable[[], None]) -> Entry:
        permits = self._bulk_permits if task.is_bulk else self._permits
        turn = _Turn(permits[task.destination.name], partial(self._targets.alone, task.target))
        control = TaskControl(
            is_stopped=lambda: task.execution_id in self._stops, yield_permit=turn.left_to_others
        )
        return Entry(TaskRun(task, TaskProgress(started=self._clock.now()), control), turn, [done])

    def is_busy(self, task: Task) -> bool:
        """Whether one with the same target waits or runs."""
        return any((is_bulk, task.target) in self._latest for is_bulk in (True, False))

    def entries(self) -> Iterator[Entry]:
        """All that waits or runs."""
        return (entry for waiting in self._waiting.values() for entry in waiting)

    @property
    def idle(self) -> bool:
        return not self._workers

    async def drain(self, seconds: float) -> bool:
        """Let what runs and waits finish for so long, then cancel it; True when all finished by itself."""
        if self._workers:
            await asyncio.wait(self._workers, timeout=seconds)
        finished = self.idle
        for worker in list(self._workers):
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        return finished

    def _make_way(self, older: Entry) -> None:
        """For a newer one with the same target, that has been put in."""
        older.run.control.superseded.set()
        waiting = self._waiting.get(older.task.lane)
        if waiting is not None and older.may_end_unread and older in waiting and older is not waiting[0]:
            waiting.remove(older)
            self._begin(self._end_unread(older), f"superseded {older.task.task_id}")

    async def _end_unread(self, entry: Entry) -> None:
        entry.run.progress.started = self._clock.now()
        await self._supersede(entry.run)
        self._over(entry)

    async def _work(self, lane: tuple[str, ...]) -> None:
        waiting = self._waiting[lane]
        try:
            while waiting:
                await self._one(waiting[0])
                waiting.popleft()
        finally:
            del self._waiting[lane]

    async def _one(self, entry: Entry) -> None:
        async with entry.turn:
            entry.run.progress.started = self._clock.now()
            entry.run.control.phase = Phase.RUNNING
            await self._run(entry.run)
        self._over(entry)

    def _over(self, entry: Entry) -> None:
        task, entry.is_over = entry.task, True
        del self._entries[task.task_id, task.event.id]
        if self._latest.get((task.is_bulk, task.target)) is entry:
            del self._latest[task.is_bulk, task.target]
        for done in entry.done:
            done()

    def _begin(self, work: Coroutine[None, None, None], name: str) -> None:
        worker = asyncio.create_task(work, name=name)
        self._workers.add(worker)
        worker.add_done_callback(self._ended)

    def _ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        error = None if worker.cancelled() else worker.exception()
        if error is not None and not self.failed.done():
            self.failed.set_exception(error)


class _Turn:
    """A permit and then the target, together; who only waits for long may leave both to others meanwhile."""

    def __init__(
        self, permit: asyncio.Semaphore, target: Callable[[], AbstractAsyncContextManager[None]]
    ) -> None:
        self._permit, self._target = permit, target
        self._held = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as taken:
            await taken.enter_async_context(self._permit)
            await taken.enter_async_context(self._target())
            self._held = taken.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._held.aclose()

    @asynccontextmanager
    async def left_to_others(self) -> AsyncIterator[None]:
        """Not its turn within the block, and again its turn after it."""
        await self._held.aclose()
        yield
        await self.__aenter__()


class _Targets:
    """One at a time for each target; those that nobody wants are forgotten."""

    def __init__(self) -> None:
        self._locks: dict[tuple[str, ...], asyncio.Lock] = {}
        self._users: Counter[tuple[str, ...]] = Counter()

    @asynccontextmanager
    async def alone(self, target: tuple[str, ...]) -> AsyncIterator[None]:
        lock = self._locks.setdefault(target, asyncio.Lock())
        self._users[target] += 1
        try:
            async with lock:
                yield
        finally:
            self._users[target] -= 1
            if not self._users[target]:
                del self._users[target], self._locks[target]


def _permits(number: int) -> defaultdict[str, asyncio.Semaphore]:
    return defaultdict(lambda: asyncio.Semaphore(number))
