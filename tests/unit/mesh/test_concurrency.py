"""Several questions at once to one registry: when one fails, the rest are not asked by nobody for nobody."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from consumer.deletion import untag
from consumer.image import estimate, survey
from consumer.image.plan import Image, make_plan
from consumer.progress import TaskProgress
from consumer.settings import ImageLimits
from mesh.concurrency import KeyedLock
from mesh.errors import ServerFault
from mesh.registry.manifests import read_parts
from mesh.registry.port import Manifest
from schemas.completions import Side
from schemas.names import Tag
from tests.support import images
from tests.unit.consumer.blobs.test_blob_source import task

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LARGE = images.image(layers=[b"%d" % number for number in range(50)])
INDEX = images.index([images.image(layers=[b"%d" % number]) for number in range(8)])


class Failing:
    """It fails to answer the first question, and takes its time for all others."""

    def __init__(self) -> None:
        self.asked = self.answered = self.under_way = 0

    async def blob_size(self, *_: object) -> int | None:
        return await self._answer(None)

    async def resolve(self, *_: object) -> None:
        return await self._answer(None)

    async def read_manifest(self, _: object, reference: object) -> Manifest:
        if reference == INDEX.digest:
            return INDEX.manifest
        return await self._answer(INDEX.children[0].manifest)

    async def tags(self, _: object) -> Any:
        for number in range(8):
            yield Tag(f"v{number}")

    async def _answer(self, said: Any) -> Any:
        self.asked += 1
        self.under_way += 1
        try:
            if self.asked == 1:
                await asyncio.sleep(0)
                raise ServerFault("not now", side=Side.DESTINATION, status=500)
            for _ in range(5):
                await asyncio.sleep(0)
            self.answered += 1
            return said
        finally:
            self.under_way -= 1


async def _estimate(registry: Any) -> None:
    manifest = LARGE.manifest
    plan = make_plan(Image(manifest, ((manifest, read_parts(manifest, Side.SOURCE)),)))
    job: Any = SimpleNamespace(
        destination=registry,
        task=task(),
        progress=TaskProgress(started=NOW),
        services=SimpleNamespace(counted={}),
    )
    await estimate.estimate(job, plan)


async def _survey(registry: Any) -> None:
    job: Any = SimpleNamespace(source=registry, task=task(), services=SimpleNamespace(limits=ImageLimits()))
    await survey.read_image(job, INDEX.digest)


async def _tags(registry: Any) -> None:
    job: Any = SimpleNamespace(destination=registry, task=task())
    await untag.tags_of(job)


@pytest.mark.parametrize("ask", [_estimate, _survey, _tags])
async def test_after_an_error_nothing_is_under_way_and_nothing_more_is_asked(
    ask: Callable[[Any], Awaitable[None]],
) -> None:
    registry = Failing()
    with pytest.raises(ServerFault):
        await ask(registry)
    assert (registry.under_way, registry.answered) == (0, 0)
    asked = registry.asked
    for _ in range(100):
        await asyncio.sleep(0)
    assert registry.asked == asked <= 8


async def test_a_keyed_lock_serialises_one_key_and_reports_who_waited() -> None:
    locks, release, waited = KeyedLock[str](), asyncio.Event(), dict[str, bool]()

    async def work(name: str, key: str) -> None:
        async with locks.hold(key) as has_waited:
            waited[name] = has_waited
            await release.wait()

    working = [asyncio.create_task(work(name, key)) for name, key in (("1", "a"), ("2", "a"), ("3", "b"))]
    await asyncio.sleep(0)
    assert waited == {"1": False, "3": False}
    assert locks.is_held("a")
    release.set()
    await asyncio.gather(*working)
    assert waited == {"1": False, "2": True, "3": False}
    assert not locks.is_held("a")


async def test_a_keyed_lock_is_free_after_a_waiter_is_cancelled() -> None:
    locks = KeyedLock[str]()

    async def wait() -> None:
        async with locks.hold("a"):
            pytest.fail("the key is held")

    async with locks.hold("a"):
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert locks.is_held("a")
    assert not locks.is_held("a")
