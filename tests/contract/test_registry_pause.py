"""A registry that answers 429 pauses all requests to it, not only the one that it refused."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from aiohttp import web

from mesh.errors import Throttled
from mesh.registry.client import RegistryEndpoint, open_endpoint
from mesh.registry.port import Descriptor, digest_of
from schemas.completions import Side
from schemas.names import MediaType, Repository
from tests.support import registries
from tests.support.manual_clock import ManualClock
from tests.support.registries import Stub

APP = Repository("team/app")
BLOB = Descriptor(MediaType("application/octet-stream"), digest_of(b"blob"), 4)


class Place:
    """A registry with one blob, its endpoint, and the clock of its clients."""

    def __init__(self, stub: Stub) -> None:
        self.stub, self.clock = stub, ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.endpoint: RegistryEndpoint = open_endpoint(
            "place", stub.url, None, clock=self.clock, random=lambda: 0.0, allowed_networks=["127.0.0.0/8"]
        )

    async def look(self, side: Side = Side.SOURCE) -> int | None:
        return await self.endpoint.registry(side).blob_size(APP, BLOB.digest)

    async def throttles_with(self, seconds: str | None) -> None:
        """Answers one request with 429, and later ones normally."""
        self.stub.says(429, **({"Retry_After": seconds} if seconds is not None else {}))
        with pytest.raises(Throttled):
            await self.look()
        self.stub.says(200, b"blob")
        self.stub.asked.clear()


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with registries.stub() as stub:
        found = Place(stub)
        yield found
        await found.endpoint.close()


async def test_requests_wait_for_the_end_of_a_short_pause(place: Place) -> None:
    await place.throttles_with("7")
    assert await place.look(Side.DESTINATION) == 4
    assert (place.clock.monotonic(), len(place.stub.asked)) == (7, 1)
    assert await place.look() == 4
    assert place.clock.monotonic() == 7  # no further wait


async def test_in_a_long_pause_requests_fail_with_the_remaining_time(place: Place) -> None:
    await place.throttles_with("600")
    await place.clock.sleep(100)
    for side in (Side.SOURCE, Side.DESTINATION):
        with pytest.raises(Throttled, match="500 s are left") as caught:
            await place.look(side)
        assert (caught.value.retry_after, caught.value.side) == (500, side)
    assert place.stub.asked == []
    await place.endpoint.ping()  # whether it answers is asked all the same
    assert len(place.stub.asked) == 1
    await place.clock.sleep(500)
    assert await place.look() == 4


async def test_a_shorter_retry_after_does_not_shorten_the_pause(place: Place) -> None:
    await place.throttles_with("600")
    place.stub.says(429, Retry_After="1")
    with pytest.raises(Throttled):
        await place.endpoint.ping()
    with pytest.raises(Throttled, match="600 s are left"):
        await place.look()


@pytest.mark.parametrize("said", [None, "0", "soon"])
async def test_without_a_retry_after_there_is_no_pause(place: Place, said: str | None) -> None:
    await place.throttles_with(said)
    assert await place.look() == 4
    assert place.clock.monotonic() == 0


async def test_the_pause_of_one_registry_does_not_affect_another(place: Place) -> None:
    async with registries.stub() as stub:
        other = Place(stub)
        stub.says(200, b"blob")
        await place.throttles_with("600")
        assert await other.look() == 4
        await other.endpoint.close()


async def test_a_429_of_a_redirect_target_does_not_pause_the_registry(place: Place) -> None:
    async with registries.stub() as foreign:
        foreign.says(429, Retry_After="600")
        place.stub.says(307, Location=f"{foreign.url}/blob")
        with pytest.raises(Throttled):
            await place.look()
        place.stub.says(200, b"blob")
        assert await place.look() == 4


async def test_running_downloads_continue_during_a_pause(place: Place) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "HEAD":
            return web.Response(status=429, headers={"Retry-After": "600"})
        response = web.StreamResponse(headers={"Content-Length": "4"})
        await response.prepare(request)
        await response.write(b"bl")
        started.set()
        await go_on.wait()
        await response.write(b"ob")
        return response

    async def read() -> bytes:
        async with place.endpoint.registry(Side.SOURCE).read_blob(APP, BLOB) as chunks:
            return b"".join([chunk async for chunk in chunks])

    place.stub.answer = answer
    reading = asyncio.create_task(read())
    await started.wait()
    with pytest.raises(Throttled):
        await place.look()
    go_on.set()
    assert await reading == b"blob"
