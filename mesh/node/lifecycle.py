"""How a process of ours lives: on uvloop, until a signal; the first asks it to stop, the second does not wait."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import structlog
import uvloop

log = structlog.get_logger()

_SAME_SIGNAL_SECONDS = 0.5  # terminals, make and timeout signal the process and its group: that is one wish

Main = Callable[[asyncio.Event], Awaitable[None]]


def run(main: Main) -> None:
    """Run `main(stopping)` to its end. Errors pass through, out of the groups they may come in."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_with_signals(main))
        except BaseExceptionGroup as group:
            raise first_of(group) from group


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error that is not a group: what a person should read."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


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
