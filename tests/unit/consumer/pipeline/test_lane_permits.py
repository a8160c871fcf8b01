"""However much a listing found, half of the transfers are left for what is pushed now."""

import asyncio
from types import SimpleNamespace
from typing import Any

from consumer.blobs.copy_blobs import BlobCopier

LISTED: Any = SimpleNamespace(is_bulk=True)
PUSHED: Any = SimpleNamespace(is_bulk=False)


def copier(transfers: int) -> BlobCopier:
    unused: Any = None
    return BlobCopier(
        sources=unused, incoming=unused, brought=unused, others_here=bool, metrics=unused, speeds=unused,
        blobs_per_task=1, transfers=transfers,
    )  # fmt: skip


async def running(made: BlobCopier, *tasks: Any) -> tuple[int, list[asyncio.Task[None]]]:
    """How many of the transfers of these tasks begin, while none ends."""
    begun = 0

    async def transfer(task: Any) -> None:
        nonlocal begun
        async with made.permit(task):
            begun += 1
            await asyncio.Event().wait()

    started = [asyncio.ensure_future(transfer(task)) for task in tasks]
    for _ in range(5):
        await asyncio.sleep(0)
    return begun, started


async def test_listings_get_half_and_pushes_the_rest() -> None:
    made = copier(4)
    listed, first = await running(made, *[LISTED] * 10)
    pushed, second = await running(made, *[PUSHED] * 10)
    assert (listed, pushed) == (2, 2)
    for task in (*first, *second):
        task.cancel()
    await asyncio.gather(*first, *second, return_exceptions=True)


async def test_pushes_alone_get_all() -> None:
    pushed, started = await running(copier(4), *[PUSHED] * 10)
    assert pushed == 4
    for task in started:
        task.cancel()
    await asyncio.gather(*started, return_exceptions=True)
