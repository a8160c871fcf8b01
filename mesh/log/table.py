"""A table: a compacted topic kept materialised in memory by passing every record, from the oldest on, to a callback.

The owner of the table builds what it needs from the records. The table knows how far it has read, and lets readers
wait: for a revision (`wait_for`), or for everything that is on the log now (`caught_up`).
"""

import asyncio
import random as randomness
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from datetime import datetime, timedelta

from pydantic import ValidationError

from mesh.clock import Clock, SystemClock
from mesh.concurrency import in_turns
from mesh.errors import LogUnavailable
from mesh.log.port import Batch, Log, Record
from mesh.retry import Backoff, RetryLoop
from schemas.codec import DecodeError

_BACKOFF = Backoff(first=0.2, longest=10.0)


class Table:
    """Follows a topic while `run` runs. After an outage records may be applied again, never out of order."""

    def __init__(
        self,
        log: Log,
        topic: str,
        apply: Callable[[Record], None],
        *,
        unreadable: Callable[[Record, str], Awaitable[None]],
        clock: Clock | None = None,
        random: Callable[[], float] = randomness.random,
    ) -> None:
        """Records that `apply` refuses with `DecodeError` or `ValidationError` go to `unreadable`, with the reason."""
        self.topic = topic
        self.ready = False
        self._log = log
        self._apply = apply
        self._unreadable = unreadable
        self._clock = clock or SystemClock()
        self._random = random
        self._positions: Mapping[int, int] = {}
        self._newest: tuple[datetime, float] | None = None  # when a record was written, and read by our clock
        self._waiting: list[tuple[Mapping[int, int], asyncio.Future[None]]] = []
        self._asking: list[asyncio.Future[None]] = []  # for the next barrier
        self._asked = asyncio.Event()

    @property
    def rev(self) -> int:
        """Returns the offset up to which partition 0 is applied, holes included; -1 before any."""
        return self._positions.get(0, 0) - 1

    def log_time(self) -> datetime:
        """Returns the present time by the clock of the log, which stamps every record; the clocks of others may differ.

        It is known from the newest record that arrived while the table was followed, and is this machine's time before
        there is one.
        """
        if self._newest is None:
            return self._clock.now()
        written_at, read_at = self._newest
        return written_at + timedelta(seconds=self._clock.monotonic() - read_at)

    async def run(self) -> None:
        """Follows the topic until cancelled, also while the log is unavailable.

        Readers that still wait when it ends get `LogUnavailable`.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow(), name=f"follow {self.topic}")
                tasks.create_task(self._set_barriers(), name=f"barriers {self.topic}")
                tasks.create_task(self._become_ready(), name=f"first read {self.topic}")
        finally:
            self._fail_waiting()

    async def wait_for(self, rev: int) -> None:
        """Returns once revision `rev` is applied. It may wait for ever: call it with a time-out."""
        await self._reached({0: rev + 1})

    async def caught_up(self) -> None:
        """Returns once everything that is on the log at this call is applied. Call it with a time-out.

        Raises:
            LogUnavailable: The log did not return the end of the topic.
        """
        asking = asyncio.get_running_loop().create_future()
        self._asking.append(asking)
        self._asked.set()
        await asking

    async def _reached(self, targets: Mapping[int, int]) -> None:
        reached = asyncio.get_running_loop().create_future()
        self._waiting.append((targets, reached))
        self._release()
        await reached

    async def _follow(self) -> None:
        retry = self._retry_loop()
        while True:
            try:
                async with aclosing(self._log.follow(self.topic, start=self._positions)) as batches:
                    async for batch in batches:
                        await self._take(batch)
                        retry.reset()
            except LogUnavailable as error:
                await retry.wait(error)

    async def _take(self, batch: Batch) -> None:
        async for record in in_turns(batch.records):
            try:
                self._apply(record)
            except (DecodeError, ValidationError) as error:
                await self._unreadable(record, _reason(error))
        if self.ready and batch.records:
            self._newest = batch.records[-1].written_at, self._clock.monotonic()
        self._positions = batch.positions
        self._release()

    def _release(self) -> None:
        """Releases the readers whose targets are reached, and drops those that stopped waiting."""
        still = []
        for targets, waiter in self._waiting:
            if waiter.done():
                continue
            if all(self._positions.get(partition, 0) >= at for partition, at in targets.items()):
                waiter.set_result(None)
            else:
                still.append((targets, waiter))
        self._waiting = still

    async def _set_barriers(self) -> None:
        """Asks for the end of the topic once for all readers that are waiting; later readers share the next request."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            asking, self._asking = self._asking, []
            try:
                ends = await self._log.end(self.topic)
            except LogUnavailable as error:
                _fail(asking, str(error))
            except BaseException:
                self._asking += asking  # for `_fail_waiting`
                raise
            else:
                self._waiting.extend((ends, waiter) for waiter in asking)
                self._release()

    async def _become_ready(self) -> None:
        retry = self._retry_loop()
        while not self.ready:
            try:
                await self.caught_up()
                self.ready = True
            except LogUnavailable as error:
                await retry.wait(error)

    def _retry_loop(self) -> RetryLoop:
        return RetryLoop("table", self._clock, self._random, _BACKOFF, topic=self.topic)

    def _fail_waiting(self) -> None:
        _fail(
            [*self._asking, *(waiter for _, waiter in self._waiting)],
            f"{self.topic} is not followed any more",
        )
        self._asking, self._waiting = [], []


def _fail(waiters: list[asyncio.Future[None]], reason: str) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(LogUnavailable(reason))


def _reason(error: DecodeError | ValidationError) -> str:
    if isinstance(error, DecodeError):
        return error.reason
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{error.title}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}"[:500]
