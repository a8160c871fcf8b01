"""Answers that are refusals, invalid or too large, and the error of each."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from mesh.credentials.credentials import Credentials
from mesh.errors import (
    ConfirmedNotFound,
    ContentMismatch,
    ContentRefused,
    Denied,
    MissingParts,
    RegistryError,
    Rejected,
    ServerFault,
    Throttled,
    Unreachable,
)
from mesh.registry.client import RegistryClient, open_endpoint
from mesh.registry.manifests import OCI_INDEX, OCI_MANIFEST
from mesh.registry.port import MAX_MANIFEST, Descriptor, digest_of
from schemas.completions import Side
from schemas.names import MediaType, Repository, Tag
from tests.support import images, registries
from tests.support.manual_clock import ManualClock
from tests.support.registries import Stub

APP = Repository("team/app")
LATEST = Tag("latest")
BODY = bytes(3_000_000)
BLOB = Descriptor(MediaType("application/octet-stream"), digest_of(BODY), len(BODY))
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with registries.stub() as server:
        yield server


@pytest.fixture
async def registry(stub: Stub) -> AsyncIterator[RegistryClient]:
    endpoint = open_endpoint("place", stub.url, None, clock=ManualClock(NOW))
    yield endpoint.registry(Side.SOURCE)
    await endpoint.close()


@pytest.mark.parametrize(
    ("status", "code", "error", "retryable"),
    [
        (400, "NAME_INVALID", Rejected, False),
        (401, "UNAUTHORIZED", Denied, False),
        (403, "DENIED", Denied, False),
        (404, "NAME_UNKNOWN", ConfirmedNotFound, False),
        (404, "NOT_FOUND", ConfirmedNotFound, False),
        (408, "", ServerFault, True),
        (418, "", Rejected, False),
        (429, "TOOMANYREQUESTS", Throttled, True),
        (500, "UNKNOWN", ServerFault, True),
        (503, "", ServerFault, True),
        (204, "", Rejected, False),
        (304, "", Rejected, False),
    ],
)
async def test_each_refusal_has_its_own_error(
    stub: Stub, registry: RegistryClient, status: int, code: str, error: type[RegistryError], retryable: bool
):
    said = {"errors": [{"code": code, "message": "because\r\nof \x1b[31mthis " + "x" * 1000, "detail": None}]}
    stub.says(status, json.dumps(said).encode() if code else b"")
    with pytest.raises(error) as caught:
        await registry.read_manifest(APP, LATEST)
    assert type(caught.value) is error
    assert (caught.value.retryable, caught.value.side, caught.value.status) == (
        retryable,
        Side.SOURCE,
        status,
    )
    text = str(caught.value)
    assert f"{stub.url}/v2/team/app/manifests/latest" in text
    assert code in text
    assert len(text) < 500
    assert text.isprintable()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0.0),
        ("99999999999999999999", 3600.0),
        ("soon", None),
        ("-5", None),
        ("Thu, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Thu, 01 Jan 2026 00:00:00 +99999999999999999999", None),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", None),
    ],
)
async def test_a_throttled_error_has_the_retry_after(
    stub: Stub, registry: RegistryClient, header: str, seconds: float | None
):
    stub.says(429, Retry_After=header)
    with pytest.raises(Throttled) as caught:
        await registry.resolve(APP, LATEST)
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("code", ["MANIFEST_BLOB_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN"])
async def test_a_manifest_whose_parts_are_missing(stub: Stub, registry: RegistryClient, code: str):
    stub.says(404, json.dumps({"errors": [{"code": code}]}).encode())
    with pytest.raises(MissingParts):
        await registry.write_manifest(APP, LATEST, images.image(layers=[]).manifest)


async def test_an_unreachable_registry_is_named(registry: RegistryClient):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for url, reason in (
        (f"http://127.0.0.1:{port}", "refused"),
        ("http://nowhere.invalid", "nowhere.invalid"),
    ):
        endpoint = open_endpoint("beijing", url, None)
        with pytest.raises(Unreachable, match=reason) as caught:
            await endpoint.ping()
        assert "beijing" in str(caught.value)
        await endpoint.close()
        with pytest.raises(Unreachable, match="closed"):
            await endpoint.ping()


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example", ".example"])
async def test_an_invalid_host_name_is_refused_in_the_url_and_in_a_redirect(
    stub: Stub, registry: RegistryClient, host: str
):
    stub.says(307, Location=f"http://{host}/x")
    with pytest.raises(Rejected, match="host name"):
        await registry.read_manifest(APP, LATEST)
    endpoint = open_endpoint("beijing", f"http://{host}", None)
    with pytest.raises(Rejected, match="beijing: an invalid host name"):
        await endpoint.ping()
    await endpoint.close()


async def test_a_token_that_is_not_a_valid_header_is_refused_and_not_shown(stub: Stub):
    endpoint = open_endpoint("beijing", stub.url, Credentials(None, "hush\nhush"))
    with pytest.raises(Rejected, match="beijing: an invalid header") as caught:
        await endpoint.ping()
    await endpoint.close()
    assert ("hush" in str(caught.value), stub.asked) == (False, [])


async def test_what_is_not_http_is_refused():
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        endpoint = open_endpoint("place", f"http://127.0.0.1:{port}", None)
        with pytest.raises(RegistryError):
            await endpoint.ping()
        await endpoint.close()


@pytest.mark.parametrize("host", ["a..b", f"{'a' * 64}.example", ".example"])
async def test_a_redirect_to_an_invalid_host_name_is_refused(stub: Stub, registry: RegistryClient, host: str):
    stub.says(307, Location=f"http://{host}/blob")
    with pytest.raises(Rejected):
        await registry.blob_size(APP, BLOB.digest)


async def test_a_cancelled_close_leaves_nothing_open(stub: Stub):
    stub.says(200)
    endpoint = open_endpoint("place", stub.url, None)
    await endpoint.ping()  # a connection that a close waits for
    closing = asyncio.create_task(endpoint.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert endpoint._transport._trusted.closed
    assert endpoint._transport._guarded.closed


async def test_a_client_that_is_closed_while_it_waits_for_a_token_is_unreachable(stub: Stub):
    endpoint, asked, go_on = open_endpoint("place", stub.url, None), asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"token": "t"})
        challenge = {"WWW-Authenticate": f'Bearer realm="{stub.url}/token"'}
        return web.Response(status=401, headers=challenge)

    real = endpoint._transport._auth._fetch

    async def fetch(*args: Any) -> bytes:
        body = await real(*args)
        asked.set()
        await go_on.wait()
        return body

    endpoint._transport._auth._fetch = fetch
    stub.answer = answer
    asking = asyncio.ensure_future(endpoint.registry(Side.SOURCE).blob_size(APP, BLOB.digest))
    await asked.wait()
    await endpoint.close()
    go_on.set()
    with pytest.raises(Unreachable):
        await asking


MANIFEST = images.image(layers=[b"layer"]).manifest


@pytest.mark.parametrize(
    ("body", "content_type", "claimed", "error"),
    [
        (b" " * (MAX_MANIFEST + 1), OCI_MANIFEST, None, ContentRefused),
        (b"not json", OCI_MANIFEST, None, ContentRefused),
        (b"[1]", OCI_MANIFEST, None, ContentRefused),
        (b"[" * 100_000, OCI_MANIFEST, None, ContentRefused),
        (b"{}", "", None, ContentRefused),
        (MANIFEST.body, OCI_INDEX, None, ContentRefused),
        (b'{"manifests":[],"layers":[]}', "application/json", None, ContentRefused),
        (b'{"manifests":[],"config":{}}', OCI_INDEX, None, ContentRefused),
        (b'{"manifests":[],"config":{}}', OCI_MANIFEST, None, ContentRefused),
        (MANIFEST.body, OCI_MANIFEST, digest_of(b"other"), ContentMismatch),
        (MANIFEST.body, OCI_MANIFEST, "md5:12", Rejected),
    ],
)
async def test_an_invalid_manifest_is_refused(
    stub: Stub,
    registry: RegistryClient,
    body: bytes,
    content_type: str,
    claimed: str | None,
    error: type[RegistryError],
):
    headers = {"Content_Type": content_type} | ({"Docker_Content_Digest": claimed} if claimed else {})
    stub.says(200, body, **headers)
    with pytest.raises(error) as caught:
        await registry.read_manifest(APP, LATEST)
    assert type(caught.value) is error


async def test_a_manifest_read_by_digest_has_that_digest(stub: Stub, registry: RegistryClient):
    stub.says(200, MANIFEST.body, Content_Type=OCI_MANIFEST)
    assert await registry.read_manifest(APP, MANIFEST.digest) == MANIFEST
    for algorithm in ("sha256", "sha512"):
        with pytest.raises(ContentMismatch):
            await registry.read_manifest(APP, digest_of(b"other", algorithm))


async def test_a_head_without_a_digest_is_repeated_as_get(stub: Stub, registry: RegistryClient):
    stub.says(200, MANIFEST.body, Content_Type=f"{OCI_MANIFEST}; charset=utf-8")
    assert await registry.resolve(APP, LATEST) == MANIFEST.descriptor
    assert [request.method for request in stub.asked] == ["HEAD", "GET"]


async def test_a_head_may_name_the_digest_by_another_algorithm(stub: Stub, registry: RegistryClient):
    stub.says(200, MANIFEST.body, Content_Type=OCI_MANIFEST, Docker_Content_Digest=MANIFEST.digest)
    asked = digest_of(MANIFEST.body, "sha512")
    found = await registry.resolve(APP, asked)
    assert found is not None
    assert found.digest == asked


async def test_a_head_of_another_digest_is_a_mismatch(stub: Stub, registry: RegistryClient):
    stub.says(200, MANIFEST.body, Content_Type=OCI_MANIFEST, Docker_Content_Digest=MANIFEST.digest)
    with pytest.raises(ContentMismatch):
        await registry.resolve(APP, digest_of(b"other"))


async def test_tags_are_read_page_by_page(stub: Stub, registry: RegistryClient):
    async def answer(request: web.Request) -> web.StreamResponse:
        last = int(request.query.get("last", "0"))
        links = {"Link": f'</v2/team/app/tags/list?last={last + 2}&n=1000>; rel="next"'} if last < 4 else {}
        return web.json_response({"tags": [f"v{last}", f"v{last + 1}"]}, headers=links)

    stub.answer = answer
    assert [tag async for tag in registry.tags(APP)] == [f"v{number}" for number in range(6)]
    assert stub.asked[0].query["n"] == "1000"


@pytest.mark.parametrize("link", ["http://127.0.0.1:9/v2/x", "/v2/team/app/tags/list?n=1000", "ftp://x/"])
async def test_a_next_page_elsewhere_or_the_same_is_refused(stub: Stub, registry: RegistryClient, link: str):
    stub.says(200, b'{"tags": ["a"]}', Link=f"<{link}>; rel=next")
    with pytest.raises(Rejected):
        [tag async for tag in registry.tags(APP)]
    assert len(stub.asked) == 1


@pytest.mark.parametrize("body", [b"", b"[]", b'{"tags": ["../x"]}', b'{"tags": [1]}', b'{"tags": 5}'])
async def test_an_invalid_list_of_tags_is_refused(stub: Stub, registry: RegistryClient, body: bytes):
    stub.says(200, body)
    with pytest.raises(Rejected):
        [tag async for tag in registry.tags(APP)]


async def test_an_upload_that_is_refused_early_stops_reading_its_source(stub: Stub, registry: RegistryClient):
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(1_000_000)

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": "/upload"})
        return web.Response(status=403 if request.method == "PUT" else 204)

    stub.answer = answer
    with pytest.raises(RegistryError):
        await registry.write_blob(APP, Descriptor(BLOB.media_type, BLOB.digest, 10**12), endless())
    assert taken < 100
    assert stub.asked[-1].method == "DELETE"


async def test_a_lost_upload_session_is_retryable(stub: Stub, registry: RegistryClient):
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": "/upload"})
        await request.read()
        return web.json_response({"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}, status=404)

    stub.answer = answer

    async def body() -> AsyncIterator[bytes]:
        yield BODY

    with pytest.raises(ServerFault) as caught:
        await registry.write_blob(APP, BLOB, body())
    assert caught.value.retryable
