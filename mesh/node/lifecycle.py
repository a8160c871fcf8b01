"""The life of a process: it runs on uvloop until a signal; the first one stops it in order, the second at once."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager

import structlog
import uvloop

from mesh.node import file_descriptors

log = structlog.get_logger()

_SAME_SIGNAL_SECONDS = (
    0.5  # a terminal, make and timeout all signal the process and its group: that is one request
)

Main = Callable[[asyncio.Event], Awaitable[None]]


def run(main: Main) -> None:
    """Runs `main(stopping)` to its end; a signal sets `stopping`. Raises the first error out of exception groups."""
    file_descriptors.raise_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_with_signals(main))
        except BaseExceptionGroup as group:
            raise first_of(group) from group


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Returns the first error that is not a group: the one to show to a person."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@asynccontextmanager
async def background(*work: Coroutine[None, None, object]) -> AsyncIterator[None]:
    """Runs coroutines while the block runs and cancels them at its end; an error of one cancels the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in work]
        yield
        for task in tasks:
            task.cancel()


async def _with_signals(main: Main) -> None:
    stopping = asyncio.Event()
    running = asyncio.ensure_future(main(stopping))
    loop = asyncio.get_running_loop()
    first = 0.0

    def on_signal(name: str) -> None:
        nonlocal first
        if stopping.is_set():
            if loop.time() - first < _SAME_SIGNAL_SECONDS:
                return
            log.warning("stopping at once", action="stop_now", signal=name)
            running.cancel()
            return
        log.info("stopping", action="stop", signal=name)
        first = loop.time()
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number.name)
    try:
        await running
    except asyncio.CancelledError:
        if not stopping.is_set():
            raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
