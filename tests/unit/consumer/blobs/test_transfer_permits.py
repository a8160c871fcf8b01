"""Tasks found by listings hold at most half of the transfer permits; pushes may hold all."""

import asyncio
from types import SimpleNamespace
from typing import Any

from consumer.blobs.copy_blobs import TransferPermits

LISTED: Any = SimpleNamespace(is_bulk=True)
PUSHED: Any = SimpleNamespace(is_bulk=False)


async def running(permits: TransferPermits, *tasks: Any) -> tuple[int, list[asyncio.Task[None]]]:
    """Returns how many transfers of these tasks start while none ends."""
    count = 0

    async def transfer(task: Any) -> None:
        nonlocal count
        async with permits.hold(task):
            count += 1
            await asyncio.Event().wait()

    started = [asyncio.ensure_future(transfer(task)) for task in tasks]
    for _ in range(5):
        await asyncio.sleep(0)
    return count, started


async def test_listings_hold_half_of_the_permits_and_pushes_the_rest() -> None:
    permits = TransferPermits(4)
    listed, first = await running(permits, *[LISTED] * 10)
    pushed, second = await running(permits, *[PUSHED] * 10)
    assert (listed, pushed) == (2, 2)
    for task in (*first, *second):
        task.cancel()
    await asyncio.gather(*first, *second, return_exceptions=True)


async def test_pushes_alone_hold_all_permits() -> None:
    pushed, started = await running(TransferPermits(4), *[PUSHED] * 10)
    assert pushed == 4
    for task in started:
        task.cancel()
    await asyncio.gather(*started, return_exceptions=True)
