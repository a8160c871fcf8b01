"""Uploads to the built-in registry: monolithic, in chunks, and resumed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.registry.builtin import BuiltinRegistry
from mesh.registry.port import digest_of
from tests.support.builtin_client import BLOB, Answer, Client


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_upload_in_chunks(ask: Client, algorithm: str):
    digest = digest_of(BLOB, algorithm)
    where = await ask.begin()
    for start in range(0, len(BLOB), 400):
        chunk = BLOB[start : start + 400]
        last = start + len(chunk) - 1
        headers = {"Content-Range": f"{start}-{last}"}
        answer = await ask("PATCH", where, data=chunk, headers=headers)
        assert (answer.status, answer.headers["Range"]) == (202, f"0-{last}")
        where = answer.headers["Location"]
    put = await ask("PUT", where, params={"digest": digest})
    assert (put.status, put.headers["Docker-Content-Digest"]) == (201, digest)
    assert (await ask("GET", put.headers["Location"])).body == BLOB


async def test_upload_streamed_then_finished_with_the_last_chunk(ask: Client):
    async def pieces() -> AsyncIterator[bytes]:
        yield BLOB[:300]
        yield BLOB[300:600]

    where = await ask.begin()
    patch = await ask("PATCH", where, data=pieces())
    assert (patch.status, patch.headers["Range"]) == (202, "0-599")
    headers = {"Content-Range": "600-999"}
    put = await ask("PUT", where, params={"digest": digest_of(BLOB)}, data=BLOB[600:], headers=headers)
    assert put.status == 201
    assert (await ask("GET", put.headers["Location"])).body == BLOB


async def test_a_chunk_out_of_order_is_refused_and_the_upload_continues(ask: Client):
    where = await ask.begin()
    await ask("PATCH", where, data=BLOB[:400], headers={"Content-Range": "0-399"})
    for wrong in ("0-399", "500-899", "bytes 400-799/1000", "799-400"):
        answer = await ask("PATCH", where, data=BLOB[400:800], headers={"Content-Range": wrong})
        assert (answer.status, answer.headers["Range"]) == (416, "0-399")
    status = await ask("GET", where)
    assert (status.status, status.headers["Range"]) == (204, "0-399")
    put = await ask("PUT", where, params={"digest": digest_of(BLOB)}, data=BLOB[400:])
    assert put.status == 201


async def test_a_chunk_with_a_wrong_length_is_refused(ask: Client):
    async def pieces() -> AsyncIterator[bytes]:
        yield BLOB[:10]

    where = await ask.begin()
    with_length = await ask("PATCH", where, data=BLOB[:10], headers={"Content-Range": "0-99"})
    without = await ask("PATCH", where, data=pieces(), headers={"Content-Range": "0-99"})
    assert [with_length.code, without.code] == ["SIZE_INVALID", "SIZE_INVALID"]
    assert (await ask("GET", where)).status == 404


async def test_an_upload_with_a_wrong_digest_is_not_stored(ask: Client, tmp_path: Path):
    wrong = digest_of(b"something else")
    single = await ask("POST", f"/v2/app/blobs/uploads/?digest={wrong}", data=BLOB)
    where = await ask.begin()
    put = await ask("PUT", where, params={"digest": wrong}, data=BLOB)
    assert [single.code, put.code] == ["DIGEST_INVALID", "DIGEST_INVALID"]
    assert (await ask("HEAD", f"/v2/app/blobs/{wrong}")).status == 404
    assert [path for path in (tmp_path / "registry").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("digest", ["", "sha256:abc", "md5:" + "0" * 32])
async def test_the_end_of_an_upload_needs_a_digest(ask: Client, digest: str):
    where = await ask.begin()
    assert (await ask("PUT", where, params={"digest": digest}, data=BLOB)).code == "DIGEST_INVALID"
    assert (await ask("GET", where)).status == 204


async def test_an_upload_can_be_cancelled(ask: Client, tmp_path: Path):
    where = await ask.begin()
    await ask("PATCH", where, data=BLOB)
    assert (await ask("DELETE", where)).status == 204
    assert (await ask("GET", where)).code == "BLOB_UPLOAD_UNKNOWN"
    assert list((tmp_path / "registry" / "incoming").iterdir()) == []


async def test_an_upload_belongs_to_its_repository(ask: Client):
    where = await ask.begin("one")
    assert (await ask("GET", where.replace("/one/", "/two/"))).code == "BLOB_UPLOAD_UNKNOWN"


async def test_an_upload_survives_a_broken_connection(ask: Client):
    digest = digest_of(BLOB)
    where = await ask.begin()
    await _send_part_and_leave(ask.registry, where, BLOB[:700])
    status = await _settled(ask, where, "0-699")
    start = int(status.headers["Range"].partition("-")[2]) + 1
    put = await ask("PUT", where, params={"digest": digest}, data=BLOB[start:])
    assert put.status == 201
    assert (await ask("GET", put.headers["Location"])).body == BLOB


async def _send_part_and_leave(registry: BuiltinRegistry, where: str, part: bytes) -> None:
    host, _, port = registry.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"PATCH {where} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n\r\n"
    writer.write(head.encode() + part)
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def _settled(ask: Client, where: str, expected: str) -> Answer:
    async with asyncio.timeout(5):
        while (status := await ask("GET", where)).headers.get("Range") != expected:
            await asyncio.sleep(0.01)
    return status


async def test_requests_for_one_upload_are_serialised(ask: Client):
    go_on = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield BLOB[:500]
        await go_on.wait()
        yield BLOB[500:]

    where = await ask.begin()
    slow = asyncio.ensure_future(ask("PATCH", where, data=pieces()))
    await _settled(ask, where, "0-499")
    finishing = asyncio.ensure_future(ask("PUT", where, params={"digest": digest_of(BLOB)}))
    cancelling = asyncio.ensure_future(ask("DELETE", where))
    go_on.set()
    assert (await slow).headers["Range"] == "0-999"
    assert {(await finishing).status, (await cancelling).status} in ({201, 404}, {204, 404})
