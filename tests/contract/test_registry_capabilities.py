"""Cached capabilities of a registry spare requests for a minute, and never skip existing content."""

from collections.abc import AsyncIterator

import orjson
import pytest
from aiohttp import web

from mesh.errors import Denied
from mesh.registry.client import RegistryClient, open_endpoint
from mesh.registry.manifests import OCI_INDEX
from mesh.registry.port import Descriptor, digest_of
from schemas.completions import Side
from schemas.names import MediaType, Repository
from tests.contract.test_registry_answers import NOW
from tests.support import registries
from tests.support.manual_clock import ManualClock
from tests.support.registries import Stub

APP = Repository("team/app")
BODY = b"layer"
BLOB = Descriptor(MediaType("application/octet-stream"), digest_of(BODY), len(BODY))


class _Registry:
    """A registry without a referrers API; `mounts` is the status of its answer to a mount."""

    def __init__(self, stub: Stub, clock: ManualClock) -> None:
        self.clock, self.asked = clock, list[str]()
        self.mounts, self.begins, self.holds, self.tagged = 202, 202, False, False
        self.no_referrers = web.Response(status=404, text="404 page not found")
        self.sessions = 0
        stub.answer = self._answer

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        what = "mount" if "mount" in request.query else request.path.split("/")[4]
        self.asked.append(f"{request.method} {what}")
        if request.method == "POST":
            status = self.mounts if what == "mount" else self.begins
            self.sessions += status == 202
            return web.Response(
                status=status, headers={"Location": f"/v2/team/app/blobs/uploads/{self.sessions}"}
            )
        if request.method == "PUT":
            self.asked[-1] += f" of {request.path.rpartition('/')[2]}"
            return web.Response(status=201)
        if request.method == "HEAD":
            return web.Response(status=200 if self.holds else 404, headers={"Content-Length": str(len(BODY))})
        if what == "referrers":
            return web.Response(status=404, body=self.no_referrers.body)
        if self.tagged and request.method == "GET":
            return web.Response(body=orjson.dumps({"manifests": []}), content_type=OCI_INDEX)
        return web.Response(status=204 if request.method == "DELETE" else 404)


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with registries.stub() as server:
        yield server


@pytest.fixture
def server(stub: Stub) -> _Registry:
    return _Registry(stub, ManualClock(NOW))


@pytest.fixture
async def registry(stub: Stub, server: _Registry) -> AsyncIterator[RegistryClient]:
    endpoint = open_endpoint("place", stub.url, None, clock=server.clock)
    yield endpoint.registry(Side.DESTINATION)
    await endpoint.close()


async def _chunks() -> AsyncIterator[bytes]:
    yield BODY


async def _write_known_blob(server: _Registry, registry: RegistryClient) -> None:
    """Writes a blob, which the client can probe with."""
    await registry.write_blob(APP, BLOB, _chunks())
    server.asked.clear()


async def test_a_registry_with_mounts_checks_and_opens_an_upload_in_one_request(
    server: _Registry, registry: RegistryClient
) -> None:
    await _write_known_blob(server, registry)
    server.mounts = 201
    assert await registry.begin_upload(APP, BLOB.digest) is None
    assert server.asked == ["POST mount", "POST mount"]  # the first one finds it out
    server.asked.clear()
    server.mounts = 202
    assert await registry.begin_upload(APP, digest_of(b"another")) is not None
    assert server.asked == ["POST mount"]


@pytest.mark.parametrize("refusal", [202, 400, 403, 404, 500])
@pytest.mark.parametrize("holds", [True, False])
async def test_a_registry_without_mounts_needs_two_requests(
    server: _Registry, registry: RegistryClient, holds: bool, refusal: int
) -> None:
    """A registry that answers a mount with an upload does not say what it has."""
    await _write_known_blob(server, registry)
    server.mounts, server.holds = refusal, holds
    apart = ["HEAD blobs"] if holds else ["HEAD blobs", "POST blobs"]
    assert (await registry.begin_upload(APP, BLOB.digest) is None) is holds
    assert server.asked == ["POST mount", *(["DELETE blobs"] if refusal == 202 else []), *apart]
    server.asked.clear()
    assert (await registry.begin_upload(APP, BLOB.digest) is None) is holds
    assert server.asked == apart
    await server.clock.sleep(61)
    await registry.begin_upload(APP, BLOB.digest)
    assert server.asked[len(apart)] == "POST mount"


async def test_without_a_known_blob_there_is_no_probe(server: _Registry, registry: RegistryClient) -> None:
    assert await registry.begin_upload(APP, BLOB.digest) is not None
    assert server.asked == ["HEAD blobs", "POST blobs"]


async def test_a_refused_mount_falls_back_to_two_requests(
    server: _Registry, registry: RegistryClient
) -> None:
    await _write_known_blob(server, registry)
    server.mounts = 201
    await registry.begin_upload(APP, BLOB.digest)
    server.asked.clear()
    server.mounts = 403
    assert await registry.begin_upload(APP, BLOB.digest) is not None
    assert server.asked == ["POST mount", "HEAD blobs", "POST blobs"]


async def test_a_client_that_may_not_write_gets_denied(server: _Registry, registry: RegistryClient) -> None:
    server.mounts = server.begins = 403
    with pytest.raises(Denied):
        await registry.begin_upload(APP, BLOB.digest)


async def test_an_expired_upload_session_is_replaced(server: _Registry, registry: RegistryClient) -> None:
    upload = await registry.begin_upload(APP, BLOB.digest)
    await server.clock.sleep(61)
    await registry.write_blob(APP, BLOB, _chunks(), upload)
    assert server.asked == ["HEAD blobs", "POST blobs", "DELETE blobs", "POST blobs", "PUT blobs of 2"]


async def test_without_api_and_fallback_tag_referrers_are_not_requested(
    server: _Registry, registry: RegistryClient
) -> None:
    for _ in range(3):
        assert await registry.referrers(APP, BLOB.digest, has_no_tag=True) == []
    assert server.asked == ["GET referrers"]
    await server.clock.sleep(61)
    await registry.referrers(APP, BLOB.digest, has_no_tag=True)
    assert server.asked == ["GET referrers"] * 2


async def test_with_an_unknown_fallback_tag_both_are_requested_each_time(
    server: _Registry, registry: RegistryClient
) -> None:
    await registry.referrers(APP, BLOB.digest, has_no_tag=True)
    await registry.referrers(APP, BLOB.digest)
    assert server.asked == ["GET referrers", "GET referrers", "GET manifests"]


async def test_a_404_of_the_referrers_api_itself_is_not_cached(
    server: _Registry, registry: RegistryClient
) -> None:
    said = {"errors": [{"code": "NAME_UNKNOWN", "message": "no such repository"}]}
    server.no_referrers = web.Response(status=404, body=orjson.dumps(said))
    for _ in range(2):
        assert await registry.referrers(APP, BLOB.digest, has_no_tag=True) == []
    assert server.asked == ["GET referrers"] * 2
