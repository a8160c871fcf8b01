"""Downloads that break, are wrong or of a wrong size: resumed where they broke, and never returned wrong."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from aiohttp import web

from mesh.errors import ContentMismatch, Rejected, Unreachable
from mesh.registry.client import RegistryClient, open_endpoint
from mesh.registry.port import Descriptor, digest_of
from schemas.completions import Side
from schemas.names import MediaType, Repository
from tests.support import registries
from tests.support.manual_clock import ManualClock
from tests.support.registries import Stub

APP = Repository("team/app")
BODY = os.urandom(3_000_000)
BLOB = Descriptor(MediaType("application/octet-stream"), digest_of(BODY), len(BODY))


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with registries.stub() as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
async def registry(stub: Stub, clock: ManualClock) -> AsyncIterator[RegistryClient]:
    endpoint = open_endpoint("place", stub.url, None, clock=clock, random=lambda: 0.0)  # no jitter
    yield endpoint.registry(Side.SOURCE)
    await endpoint.close()


async def read(registry: RegistryClient, blob: Descriptor = BLOB) -> bytes:
    async with registry.read_blob(APP, blob) as chunks:
        return b"".join([chunk async for chunk in chunks])


class Cutter:
    """Serves BODY, but breaks off each of the first answers after some bytes."""

    def __init__(self, stub: Stub, cuts: list[int], *, ranges: bool = True) -> None:
        self.cuts = cuts
        self.ranges = ranges
        self.asked: list[str | None] = []
        stub.answer = self.answer

    async def answer(self, request: web.Request) -> web.StreamResponse:
        asked = request.headers.get("Range")
        self.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.ranges else 0
        headers = {"Content-Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"} if start else {}
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        response.content_length = len(BODY) - start
        await response.prepare(request)
        if self.cuts:
            await response.write(BODY[start : start + self.cuts.pop(0)])
            assert request.transport is not None
            request.transport.close()
        else:
            await response.write(BODY[start:])
        return response


async def test_a_broken_download_resumes_where_it_broke(stub: Stub, registry: RegistryClient):
    cutter = Cutter(stub, [1_000_000, 500_000])
    assert await read(registry) == BODY
    assert cutter.asked == [None, "bytes=1000000-", "bytes=1500000-"]


async def test_without_ranges_the_received_bytes_are_skipped(stub: Stub, registry: RegistryClient):
    cutter = Cutter(stub, [1_000_000, 1_500_000], ranges=False)
    assert await read(registry) == BODY
    assert cutter.asked == [None, "bytes=1000000-", "bytes=1500000-"]


async def test_downloads_without_progress_end(stub: Stub, registry: RegistryClient, clock: ManualClock):
    cutter = Cutter(stub, [10] * 100)
    with pytest.raises(Unreachable) as caught:
        await read(registry)
    assert caught.value.side is Side.SOURCE
    assert len(cutter.asked) == 8
    assert 10 < clock.monotonic() < 40


async def test_downloads_with_progress_may_break_any_number_of_times(stub: Stub, registry: RegistryClient):
    Cutter(stub, [1024 * 1024 * (number % 2) for number in range(4)])
    assert await read(registry) == BODY


async def test_a_registry_that_is_down_for_a_while_is_waited_for(stub: Stub, registry: RegistryClient):
    cutter = Cutter(stub, [1_000_000])
    down = [503, 503, 429]

    async def answer(request: web.Request) -> web.StreamResponse:
        if cutter.asked and down:
            return web.Response(status=down.pop(0), headers={"Retry-After": "3"})
        return await cutter.answer(request)

    stub.answer = answer
    assert await read(registry) == BODY


async def test_a_wrong_range_is_refused(stub: Stub, registry: RegistryClient):
    cutter = Cutter(stub, [1_000_000])

    async def answer(request: web.Request) -> web.StreamResponse:
        if not cutter.asked:
            return await cutter.answer(request)
        return web.Response(status=206, body=BODY[5:], headers={"Content-Range": "bytes 5-/9"})

    stub.answer = answer
    with pytest.raises(Rejected):
        await read(registry)


@pytest.mark.parametrize("position", [0, 1_000_000, len(BODY) - 1])
async def test_a_wrong_byte_is_found_before_the_last_chunk(
    stub: Stub, registry: RegistryClient, position: int
):
    stub.says(body=BODY[:position] + bytes([BODY[position] ^ 1]) + BODY[position + 1 :])
    received = 0

    async def read_on() -> None:
        nonlocal received
        async with registry.read_blob(APP, BLOB) as chunks:
            async for chunk in chunks:
                received += len(chunk)

    with pytest.raises(ContentMismatch):
        await read_on()
    assert received < len(BODY)


@pytest.mark.parametrize("body", [BODY[:-1], BODY + b"x", b""])
async def test_a_body_of_unknown_length_and_wrong_size_is_a_mismatch(
    stub: Stub, registry: RegistryClient, body: bytes
):
    async def chunked(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(body)
        return response

    stub.answer = chunked
    with pytest.raises(ContentMismatch):
        await read(registry)


async def test_a_read_from_an_offset_uses_a_range_and_verifies_the_size(
    stub: Stub, registry: RegistryClient
) -> None:
    """The caller, who joins several streams, verifies the whole."""
    cutter = Cutter(stub, [])
    async with registry.read_blob(APP, BLOB, offset=1_000_000) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == BODY[1_000_000:]
    async with registry.read_blob(APP, BLOB, offset=0) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == BODY
    assert cutter.asked == ["bytes=1000000-", None]


async def test_a_broken_read_from_an_offset_resumes_and_a_wrong_size_is_refused(
    stub: Stub, registry: RegistryClient
) -> None:
    cutter = Cutter(stub, [500_000])
    async with registry.read_blob(APP, BLOB, offset=1_000_000) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == BODY[1_000_000:]
    assert cutter.asked == ["bytes=1000000-", "bytes=1500000-"]
    larger = Descriptor(BLOB.media_type, BLOB.digest, BLOB.size + 5)

    async def read_larger() -> None:
        async with registry.read_blob(APP, larger, offset=1_000_000) as chunks:
            async for _ in chunks:
                pass

    with pytest.raises(ContentMismatch):
        await read_larger()


async def test_a_download_closed_while_it_resumes_leaves_no_connection_open(
    stub: Stub, registry: RegistryClient
):
    """As when a copy is cancelled: the upload reads in a task of its own, which ends a moment later."""
    cutter, asked, go_on = Cutter(stub, [1000]), asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if cutter.asked:
            asked.set()
            await go_on.wait()
        return await cutter.answer(request)

    stub.answer = answer
    async with registry.read_blob(APP, BLOB) as chunks:
        assert len(await anext(chunks)) == 1000
        reading = asyncio.ensure_future(anext(chunks))
        await asked.wait()
    go_on.set()
    with pytest.raises(Unreachable):
        await reading
    assert len(cutter.asked) == 2
    assert not registry._channel.transport._trusted.connector._acquired  # type: ignore[union-attr]
