"""Lanes: tasks of one repository and destination run in order, one at a time; lanes run concurrently.

Each destination has a number of permits, so that a slow one holds up only itself. A push supersedes an older task with
the same target: one that runs ends at its next check; one that is queued ends at once, so however often a tag is pushed
behind a long copy, only one task of it is queued. A task that is put in again, because its partition was revoked and
assigned again, runs once and calls every `done` callback.

What a listing found has lanes and permits of its own, so a push never queues behind it. Both kinds share the lock of a
target: only one task writes it at a time.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Self

from consumer.progress import Phase, TaskControl, TaskProgress, TaskRun
from consumer.task import Target, Task
from mesh.clock import Clock
from mesh.concurrency import KeyedLock
from mesh.rules.stops import Stops


class Permit:
    """A permit of a destination together with the lock of a task's target."""

    def __init__(
        self, permits: asyncio.Semaphore, target: Callable[[], AbstractAsyncContextManager[object]]
    ) -> None:
        self._permits, self._target = permits, target
        self._held = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as taken:
            await taken.enter_async_context(self._permits)
            await taken.enter_async_context(self._target())
            self._held = taken.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._held.aclose()

    @asynccontextmanager
    async def yielded(self) -> AsyncIterator[None]:
        """Releases both within the block, and takes both again after it."""
        await self._held.aclose()
        yield
        await self.__aenter__()


@dataclass(eq=False, slots=True)
class Entry:
    """A task in a lane, and the callbacks for its end."""

    run: TaskRun
    permit: Permit
    done: list[Callable[[], None]]
    is_over: bool = False

    @property
    def task(self) -> Task:
        """Returns the entry's task."""
        return self.run.task

    @property
    def may_end_while_queued(self) -> bool:
        """Returns whether a newer task makes this one needless without a look at a registry.

        A referrer may prove to be no task, and a deletion has to check whether there is anything left to delete.
        """
        return self.task.operation == "copy" and not self.task.is_referrer


class Lanes:
    """Runs every task that is put in, or ends it as superseded. Neither callback raises, except when cancelled."""

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
        self._queues: dict[tuple[str, ...], deque[Entry]] = {}  # by lane; the first entry runs
        self._entries: dict[tuple[str, str], Entry] = {}  # not over yet, by task id and event id
        self._latest: dict[tuple[bool, Target], Entry] = {}  # by whether it is of a listing, and target
        self._permits = _permits(permits_per_destination)
        self._bulk_permits = _permits(bulk_permits_per_destination)
        self._targets = KeyedLock[Target]()
        self._workers: set[asyncio.Task[None]] = set()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def put(self, task: Task, done: Callable[[], None]) -> Entry:
        """Queues a task; `done` is called when its end is on the log."""
        if (same := self._entries.get(key := (task.task_id, task.event.id))) is not None:
            same.done.append(done)
            return same
        entry = self._entries[key] = self._entry(task, done)
        if not task.is_bulk:  # a listed task may be stopped before it brings its digest
            for older in self._with_target(task.target):
                self._mark_superseded(older)
        self._latest[task.is_bulk, task.target] = entry
        if (queue := self._queues.get(task.lane)) is not None:
            queue.append(entry)
        else:
            self._queues[task.lane] = deque([entry])
            self._start(self._work(task.lane), "lane " + "/".join(task.lane))
        return entry

    def is_busy(self, task: Task) -> bool:
        """Returns whether a task with the same target is queued or running."""
        return bool(self._with_target(task.target))

    def entries(self) -> Iterator[Entry]:
        """Yields all that is queued or running."""
        return (entry for queue in self._queues.values() for entry in queue)

    async def drain(self, seconds: float) -> bool:
        """Lets all tasks finish for `seconds`, then cancels them; returns whether all finished by themselves."""
        if self._workers:
            await asyncio.wait(self._workers, timeout=seconds)
        finished = not self._workers
        for worker in list(self._workers):
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        return finished

    def _entry(self, task: Task, done: Callable[[], None]) -> Entry:
        permits = self._bulk_permits if task.is_bulk else self._permits
        permit = Permit(permits[task.destination.name], partial(self._targets.hold, task.target))
        control = TaskControl(
            is_stopped=lambda: task.execution_id in self._stops, yield_permit=permit.yielded
        )
        return Entry(TaskRun(task, TaskProgress(started=self._clock.now()), control), permit, [done])

    def _with_target(self, target: Target) -> list[Entry]:
        """The latest push and the latest listed task with that target."""
        return [self._latest[key] for is_bulk in (True, False) if (key := (is_bulk, target)) in self._latest]

    def _mark_superseded(self, older: Entry) -> None:
        older.run.control.superseded.set()
        queue = self._queues.get(older.task.lane)
        if queue is not None and older.may_end_while_queued and older in queue and older is not queue[0]:
            queue.remove(older)
            self._start(self._end_queued(older), f"superseded {older.task.task_id}")

    async def _end_queued(self, entry: Entry) -> None:
        entry.run.progress.started = self._clock.now()
        await self._supersede(entry.run)
        self._finish(entry)

    async def _work(self, lane: tuple[str, ...]) -> None:
        queue = self._queues[lane]
        try:
            while queue:
                await self._run_entry(queue[0])
                queue.popleft()
        finally:
            del self._queues[lane]

    async def _run_entry(self, entry: Entry) -> None:
        async with entry.permit:
            entry.run.progress.started = self._clock.now()
            entry.run.control.phase = Phase.RUNNING
            await self._run(entry.run)
        self._finish(entry)

    def _finish(self, entry: Entry) -> None:
        task, entry.is_over = entry.task, True
        del self._entries[task.task_id, task.event.id]
        if self._latest.get((task.is_bulk, task.target)) is entry:
            del self._latest[task.is_bulk, task.target]
        for done in entry.done:
            done()

    def _start(self, work: Coroutine[None, None, None], name: str) -> None:
        worker = asyncio.create_task(work, name=name)
        self._workers.add(worker)
        worker.add_done_callback(self._worker_ended)

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        error = None if worker.cancelled() else worker.exception()
        if error is not None and not self.failed.done():
            self.failed.set_exception(error)


def _permits(number: int) -> defaultdict[str, asyncio.Semaphore]:
    return defaultdict(lambda: asyncio.Semaphore(number))
