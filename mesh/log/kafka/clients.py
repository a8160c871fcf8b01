"""The lives of aiokafka's clients: started when needed, ended in bounded time, made anew when they fail.

aiokafka does not go back to its first hosts when all brokers it knew are gone, and its `stop` may hang while brokers
are away or a group is rebalancing. So a client that failed is thrown away, and stopping it has an end.
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

_FOR_CALLS = 1.0  # seconds


class _Client(Protocol):
    async def start(self) -> None: ...


C = TypeVar("C", bound=_Client)


class Kept(Generic[C]):
    """One client that many calls share."""

    def __init__(self, make: Callable[[], C], end: Callable[[C], Awaitable[None]]) -> None:
        self._make, self._end = make, end
        self._client: C | None = None
        self._one_at_a_time = asyncio.Lock()
        self._closed = False
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def get(self) -> C:
        """The running client, started if there is none. Raises what its start raises."""
        async with self._one_at_a_time:
            if self._closed:
                raise LogUnavailable("the log was closed")
            if self._client is None:
                self._client = await started(self._make(), self._end)
            return self._client

    async def drop(self, failed: C) -> bool:
        """End `failed`; the next `get` starts a new one. False when somebody else did that already."""
        async with self._one_at_a_time:
            if self._client is not failed:
                return False
            self._client = None
            await self._end(failed)
            return True

    async def close(self, end: Callable[[C], Awaitable[None]] | None = None) -> None:
        """The end of it, by `end` if that is another way than after a failure; waits a second for calls under way.

        They may be opening connections, which aiokafka's `close` would overlook.
        """
        async with self._one_at_a_time:
            self._closed = True
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), _FOR_CALLS)
            client, self._client = self._client, None
            if client is not None:
                await (end or self._end)(client)

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[C]:
        """The running client, for one call that `close` should know of."""
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
async def borrowed(kept: Kept[C], what: str, where: object, within: float) -> AsyncIterator[C]:
    """A shared client for one call of `within` seconds; it is ended when that fails, as it may know no living broker.

    `LogUnavailable`, or `LogError` where trying again cannot help.
    """
    client: C | None = None
    try:
        async with answering(what, where, within), kept.lent() as client:
            yield client
    except LogUnavailable:
        if client is not None:
            await kept.drop(client)
        raise


async def started(client: C, end: Callable[[C], Awaitable[None]]) -> C:
    """`client`, started; when that fails it is ended, and the error goes on.

    Started in a task of its own, which is not cancelled with us: cut off between its first connection and that one's
    first answer, aiokafka would forget the connection and nobody could close it.
    """
    starting = asyncio.create_task(client.start())
    try:
        await asyncio.shield(starting)
    except BaseException:
        await _finish(starting, _FOR_CALLS)
        await end(client)
        raise
    return client


async def end_producer(producer: AIOKafkaProducer, within: float) -> None:
    """Write what is waiting, if that can be done in time; then see that nothing is written any more."""
    if not await _finishes(producer.stop(), within):
        await abandon_producer(producer)


async def abandon_producer(producer: AIOKafkaProducer) -> None:
    """End it at once. What is waiting fails, and is not written behind the back of a producer that comes after.

    `stop` alone cannot: an idempotent producer retries for ever, and `stop` waits for it.
    """
    producer._closed = True  # noqa: SLF001
    sending = producer._sender.sender_task  # noqa: SLF001
    if sending is not None:
        sending.cancel()
    producer._message_accumulator.fail_all(KafkaConnectionError("the producer was ended"))  # noqa: SLF001
    await producer.client.close()
    for _ in range(10):  # each cancels one request that it still waits for
        if sending is None or sending.done():
            break
        sending.cancel()
        await asyncio.wait([sending], timeout=0.2)
    if sending is not None and sending.done() and not sending.cancelled():
        sending.exception()  # seen; it was on its way out


async def end_consumer(consumer: AIOKafkaConsumer, within: float) -> None:
    """Leave the group and close the connections; by force when that takes longer than `within` seconds."""
    if await _finishes(consumer.stop(), within):
        return
    # It was cut off in the middle of leaving; this is what it had not come to.
    if isinstance(consumer._coordinator, GroupCoordinator):  # noqa: SLF001
        await _end_coordinator(consumer._coordinator)  # noqa: SLF001
    if consumer._fetcher is not None:  # noqa: SLF001
        await _finishes(consumer._fetcher.close(), within)  # noqa: SLF001
    await _finishes(consumer._client.close(), within)  # noqa: SLF001


async def _end_coordinator(coordinator: GroupCoordinator) -> None:
    """Its tasks, left alone, would open connections of a client that was closed."""
    for task in (
        coordinator._coordination_task,  # noqa: SLF001
        coordinator._heartbeat_task,  # noqa: SLF001
        coordinator._commit_refresh_task,  # noqa: SLF001
    ):
        if task is not None:
            await _finish(task, 0)


async def _finishes(ending: Coroutine[Any, Any, None], within: float) -> bool:
    """Whether `ending` came to its end in time and without an error.

    In a task of its own: aiokafka cancels and awaits its own tasks, and the cancellation may come out of `stop`.
    """
    task = asyncio.create_task(ending)
    await _finish(task, within)
    return task.done() and not task.cancelled() and task.exception() is None


async def _finish(task: asyncio.Task[Any], within: float) -> None:
    """Let `task` come to its end in so many seconds, then cancel it; what it raises is seen and goes no further."""
    try:
        await asyncio.wait([task], timeout=within)
    finally:
        if not task.done():
            task.cancel()
    await asyncio.wait([task], timeout=1)
    if task.done() and not task.cancelled():
        task.exception()
