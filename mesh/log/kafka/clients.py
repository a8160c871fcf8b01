"""The life cycle of aiokafka's clients: started when needed, stopped within a time-out, replaced when they fail.

aiokafka does not return to its bootstrap hosts when all brokers that it knew have disappeared, and its `stop` may hang
while brokers are unavailable or a group rebalances. So a client that failed is discarded, and stopping it has a
time-out.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, Protocol, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaConnectionError

from mesh.errors import LogUnavailable
from mesh.log.kafka.failures import answering

_CLOSE_TIMEOUT = 1.0  # seconds that calls in progress have to finish


class _Client(Protocol):
    async def start(self) -> None: ...


C = TypeVar("C", bound=_Client)


class SharedClient(Generic[C]):
    """One client that many calls share."""

    def __init__(self, create: Callable[[], C], end: Callable[[C], Awaitable[None]]) -> None:
        self._create, self._end = create, end
        self._client: C | None = None
        self._lock = asyncio.Lock()
        self._closed = False
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def get(self) -> C:
        """Returns the running client, and starts one if necessary. Raises what its start raises.

        Raises:
            LogUnavailable: The log was closed.
        """
        async with self._lock:
            if self._closed:
                raise LogUnavailable("the log was closed")
            if self._client is None:
                self._client = await started(self._create(), self._end)
            return self._client

    async def drop(self, failed: C) -> bool:
        """Ends a failed client; the next `get` starts a new one. Returns False when it was dropped already."""
        async with self._lock:
            if self._client is not failed:
                return False
            self._client = None
            await self._end(failed)
            return True

    async def close(self, end: Callable[[C], Awaitable[None]] | None = None) -> None:
        """Ends the client for good, with `end` instead of the way for failed clients.

        Waits a second for calls in progress: they may be opening connections, which aiokafka's `close` would miss.
        """
        async with self._lock:
            self._closed = True
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), _CLOSE_TIMEOUT)
            client, self._client = self._client, None
            if client is not None:
                await (end or self._end)(client)

    @asynccontextmanager
    async def in_use(self) -> AsyncIterator[C]:
        """Gives the running client to one call, which `close` waits for."""
        client = await self.get()
        self._calls += 1
        self._idle.clear()
        try:
            yield client
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()


@asynccontextmanager
async def borrowed(shared: SharedClient[C], what: str, where: object, within: float) -> AsyncIterator[C]:
    """Gives a shared client to one call of `within` seconds; drops it when the call fails for want of a broker.

    Raises:
        LogUnavailable: No answer in time.
        LogError: Trying again cannot help.
    """
    client: C | None = None
    try:
        async with answering(what, where, within), shared.in_use() as client:
            yield client
    except LogUnavailable:
        if client is not None:
            await shared.drop(client)
        raise


async def started(client: C, end: Callable[[C], Awaitable[None]]) -> C:
    """Starts a client and returns it; when that fails, ends it and raises the error.

    The start runs in a task of its own, which is not cancelled with the caller: cancelled between its first connection
    and the first answer, aiokafka would lose the connection and nothing could close it.
    """
    starting = asyncio.create_task(client.start())
    try:
        await asyncio.shield(starting)
    except BaseException:
        await _finish(starting, _CLOSE_TIMEOUT)
        await end(client)
        raise
    return client


async def end_producer(producer: AIOKafkaProducer, within: float) -> None:
    """Writes what is waiting, if that is possible in time; afterwards nothing is written any more."""
    if not await _finishes(producer.stop(), within):
        await abandon_producer(producer)


async def abandon_producer(producer: AIOKafkaProducer) -> None:
    """Ends a producer at once. What is waiting fails, and is not written while a new producer is in use.

    `stop` alone cannot do that: an idempotent producer retries for ever, and `stop` waits for it.
    """
    producer._closed = True  # noqa: SLF001
    sending = producer._sender.sender_task  # noqa: SLF001
    if sending is not None:
        sending.cancel()
    producer._message_accumulator.fail_all(KafkaConnectionError("the producer was ended"))  # noqa: SLF001
    await producer.client.close()
    for _ in range(10):  # each cancels one pending request
        if sending is None or sending.done():
            break
        sending.cancel()
        await asyncio.wait([sending], timeout=0.2)
    if sending is not None and sending.done() and not sending.cancelled():
        sending.exception()  # retrieved; the task has ended


async def end_consumer(consumer: AIOKafkaConsumer, within: float) -> None:
    """Leaves the group and closes the connections; by force when that takes longer than `within` seconds."""
    if await _finishes(consumer.stop(), within):
        return
    # It was cancelled while it was leaving; these are the steps that it had not reached.
    if isinstance(consumer._coordinator, GroupCoordinator):  # noqa: SLF001
        await _end_coordinator(consumer._coordinator)  # noqa: SLF001
    if consumer._fetcher is not None:  # noqa: SLF001
        await _finishes(consumer._fetcher.close(), within)  # noqa: SLF001
    await _finishes(consumer._client.close(), within)  # noqa: SLF001


async def _end_coordinator(coordinator: GroupCoordinator) -> None:
    """Cancels its tasks, which would otherwise open connections of a closed client."""
    for task in (
        coordinator._coordination_task,  # noqa: SLF001
        coordinator._heartbeat_task,  # noqa: SLF001
        coordinator._commit_refresh_task,  # noqa: SLF001
    ):
        if task is not None:
            await _finish(task, 0)


async def _finishes(ending: Coroutine[Any, Any, None], within: float) -> bool:
    """Returns whether `ending` finished in time and without an error.

    It runs in a task of its own: aiokafka cancels and awaits its own tasks, and `stop` may raise that cancellation.
    """
    task = asyncio.create_task(ending)
    await _finish(task, within)
    return task.done() and not task.cancelled() and task.exception() is None


async def _finish(task: asyncio.Task[Any], within: float) -> None:
    """Waits up to `within` seconds for a task, then cancels it; its error is retrieved and ignored."""
    try:
        await asyncio.wait([task], timeout=within)
    finally:
        if not task.done():
            task.cancel()
    await asyncio.wait([task], timeout=1)
    if task.done() and not task.cancelled():
        task.exception()
