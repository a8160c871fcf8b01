"""Several things at once, all or none: when one fails the others end with it, and nothing goes on unheard."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

T = TypeVar("T")


async def close_all(*closers: Callable[[], Awaitable[object]]) -> None:
    """One after the other, each whatever came of those before it, also when we are cancelled while one waits."""
    async with AsyncExitStack() as stack:
        for close in reversed(closers):
            stack.push_async_callback(close)


async def all_of(jobs: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What they give, in their order. The first error cancels the rest and passes through as itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(job) for job in jobs]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return [task.result() for task in tasks]
