"""Each fault affects only what it names, is counted, and ends when it should."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mesh.registry.builtin import BuiltinRegistry
from mesh.registry.builtin.faults import Cut, Fail, Faults, HalfWritten, Lie, Stall, Throttle
from mesh.registry.port import digest_of
from tests.support.manual_clock import ManualClock

BLOB = bytes(range(250)) * 40
DIGEST = digest_of(BLOB)
WHERE = f"/v2/app/blobs/{DIGEST}"

Ask = Callable[..., AbstractAsyncContextManager[aiohttp.ClientResponse]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


@asynccontextmanager
async def running(registry: BuiltinRegistry) -> AsyncIterator[Ask]:
    await registry.start()
    try:
        async with aiohttp.ClientSession(registry.url) as session:
            yield session.request
    finally:
        await registry.stop()


async def push(ask: Ask) -> int:
    async with ask("POST", f"/v2/app/blobs/uploads/?digest={DIGEST}", data=BLOB) as answer:
        return answer.status


async def pull(ask: Ask, method: str = "GET", where: str = WHERE, **more: Any) -> tuple[int, bytes]:
    async with ask(method, where, **more) as answer:
        return answer.status, await answer.read()


async def test_slow_limits_uploads_and_downloads(tmp_path: Path, clock: ManualClock):
    async with running(BuiltinRegistry(tmp_path, clock=clock, faults=Faults(slow=1000))) as ask:
        assert await push(ask) == 201
        assert clock.monotonic() == pytest.approx(len(BLOB) / 1000)
        assert await pull(ask) == (200, BLOB)
        assert clock.monotonic() == pytest.approx(2 * len(BLOB) / 1000)


async def test_a_stalled_blob_is_sent_after_the_stall_and_others_do_not_wait(
    tmp_path: Path, clock: ManualClock
):
    registry = BuiltinRegistry(tmp_path, clock=clock)
    other = b"another"
    async with running(registry) as ask:
        await push(ask)
        async with ask("POST", f"/v2/app/blobs/uploads/?digest={digest_of(other)}", data=other) as answer:
            assert answer.status == 201
        registry.faults.stall = Stall(DIGEST)
        waiting = asyncio.create_task(pull(ask))
        assert await pull(ask, where=f"/v2/app/blobs/{digest_of(other)}") == (200, other)
        while not registry.faults.struck["stall"]:
            await asyncio.sleep(0.01)
        assert not waiting.done()
        registry.faults.stall.over.set()
        assert await waiting == (200, BLOB)


async def test_cut_sends_some_bytes_and_closes(tmp_path: Path, clock: ManualClock):
    registry = BuiltinRegistry(tmp_path, clock=clock, faults=Faults(cut=Cut(2, 1234)))
    async with running(registry) as ask:
        await push(ask)
        for start in (0, 1234):
            async with ask("GET", WHERE, headers={"Range": f"bytes={start}-"}) as answer:
                received = await _until_broken(answer)
            assert received == BLOB[start : start + 1234]
        assert await pull(ask) == (200, BLOB)
    assert registry.faults.struck["cut"] == 2


async def _until_broken(answer: aiohttp.ClientResponse) -> bytes:
    received = b""
    try:
        async for chunk in answer.content.iter_any():
            received += chunk
    except aiohttp.ClientPayloadError:
        return received
    raise AssertionError("the answer was whole")


async def test_an_answer_shorter_than_the_cut_is_complete(tmp_path: Path, clock: ManualClock):
    registry = BuiltinRegistry(tmp_path, clock=clock, faults=Faults(cut=Cut(1, len(BLOB))))
    async with running(registry) as ask:
        await push(ask)
        assert await pull(ask) == (200, BLOB)
    assert (registry.faults.struck["cut"], registry.faults.cut) == (0, Cut(1, len(BLOB)))


async def test_throttle_sends_a_retry_after(tmp_path: Path, clock: ManualClock):
    async with running(BuiltinRegistry(tmp_path, clock=clock, faults=Faults(throttle=Throttle(2, 7)))) as ask:
        async with ask("GET", "/v2/") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
        assert (await pull(ask, where="/v2/"))[0] == 429
        assert (await pull(ask, where="/v2/"))[0] == 200


async def test_throttle_may_omit_the_retry_after(tmp_path: Path, clock: ManualClock):
    registry = BuiltinRegistry(tmp_path, clock=clock, faults=Faults(throttle=Throttle(1, None)))
    async with running(registry) as ask, ask("GET", "/v2/") as answer:
        assert (answer.status, "Retry-After" in answer.headers) == (429, False)


async def test_fail_affects_only_matching_requests(tmp_path: Path, clock: ManualClock):
    registry = BuiltinRegistry(tmp_path, clock=clock, faults=Faults(fail=Fail(1, "GET", "/v2/app/blobs/")))
    async with running(registry) as ask:
        assert await push(ask) == 201
        assert (await pull(ask, "HEAD"))[0] == 200
        assert (await pull(ask))[0] == 500
        assert await pull(ask) == (200, BLOB)
    assert registry.faults.struck == {"fail": 1}


async def test_faults_can_change_while_the_registry_runs(tmp_path: Path, clock: ManualClock):
    registry = BuiltinRegistry(tmp_path, clock=clock)
    async with running(registry) as ask:
        assert (await pull(ask, where="/v2/"))[0] == 200
        registry.faults.fail = Fail(times=100, status=503)
        assert (await pull(ask, where="/v2/"))[0] == 503
        registry.faults.fail = None
        assert (await pull(ask, where="/v2/"))[0] == 200


@pytest.mark.parametrize(("head_says_there", "head"), [(False, 404), (True, 200)])
async def test_half_written_loses_one_upload(
    tmp_path: Path, clock: ManualClock, head_says_there: bool, head: int
):
    registry = BuiltinRegistry(
        tmp_path, clock=clock, faults=Faults(half_written=HalfWritten(1, head_says_there))
    )
    async with running(registry) as ask:
        assert await push(ask) == 201
        assert (await pull(ask, "HEAD"))[0] == head
        assert (await pull(ask))[0] == 404
        assert await _put_manifest(ask) == (400, "MANIFEST_BLOB_UNKNOWN")
        assert await push(ask) == 201
        assert await pull(ask) == (200, BLOB)
        assert await _put_manifest(ask) == (201, None)
    assert registry.faults.struck == {"half_written": 1}


async def _put_manifest(ask: Ask) -> tuple[int, str | None]:
    document = {"layers": [{"digest": DIGEST, "size": len(BLOB), "mediaType": "application/x.layer"}]}
    headers = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
    async with ask("PUT", "/v2/app/manifests/1", json=document, headers=headers) as answer:
        code = None if answer.status == 201 else (await answer.json())["errors"][0]["code"]
        return answer.status, code


async def test_lie_sends_wrong_bytes_of_the_right_length(tmp_path: Path, clock: ManualClock):
    async with running(BuiltinRegistry(tmp_path, clock=clock, faults=Faults(lie=Lie(1)))) as ask:
        await push(ask)
        status, body = await pull(ask)
        assert (status, len(body)) == (200, len(BLOB))
        assert body != BLOB
        assert await pull(ask) == (200, BLOB)


async def test_lie_affects_manifests_and_can_be_limited_to_one_digest(tmp_path: Path, clock: ManualClock):
    registry = BuiltinRegistry(tmp_path, clock=clock)
    async with running(registry) as ask:
        await push(ask)
        await _put_manifest(ask)
        _, right = await pull(ask, where="/v2/app/manifests/1")
        registry.faults.lie = Lie(times=5, digest=digest_of(right))
        assert await pull(ask) == (200, BLOB)
        _, wrong = await pull(ask, where="/v2/app/manifests/1")
        assert (len(wrong), digest_of(wrong) == digest_of(right)) == (len(right), False)
        assert (await pull(ask, "HEAD", "/v2/app/manifests/1"))[0] == 200
    assert registry.faults.struck["lie"] == 1


def test_a_countdown_ends():
    faults = Faults(half_written=HalfWritten(times=2))
    assert [faults.loses(DIGEST, 1) for _ in range(4)] == [True, True, False, False]
