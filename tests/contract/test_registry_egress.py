"""A registry cannot lead the client into private networks: by redirect, upload Location or token realm."""

from collections.abc import AsyncIterator

import pytest

from mesh.credentials.credentials import Credentials
from mesh.errors import InvalidInput, Rejected
from mesh.registry.client import open_endpoint
from mesh.registry.port import Descriptor, digest_of
from schemas.completions import Side
from schemas.names import MediaType, Repository
from tests.support import registries
from tests.support.registries import Stub

APP = Repository("team/app")
BLOB = Descriptor(MediaType("application/octet-stream"), digest_of(b"blob"), 4)
# The same machine, written in every way that some parser takes for it. {port} is a server that must hear nothing.
LOOPBACK = [
    "127.0.0.1",
    "127.8.9.10",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "0",
    "0.0.0.0",
    "localhost",
    "LOCALHOST",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[2002:7f00:1::]",
    "\u2460\u2461\u2466.0.0.1",
]


@pytest.fixture
async def home() -> AsyncIterator[Stub]:
    async with registries.stub() as stub:
        yield stub


@pytest.fixture
async def private() -> AsyncIterator[Stub]:
    async with registries.stub() as stub:
        stub.says(200, b"blob")
        yield stub


async def streamed(body: bytes) -> AsyncIterator[bytes]:
    yield body


@pytest.mark.parametrize("host", LOOPBACK)
@pytest.mark.parametrize("way", ["redirect", "upload", "realm"])
async def test_a_registry_cannot_redirect_to_this_machine(home: Stub, private: Stub, host: str, way: str):
    target = f"http://{host}:{private.url.rpartition(':')[2]}/x".encode().decode("latin-1")
    endpoint = open_endpoint("place", home.url, Credentials("anna", "secret"))
    registry = endpoint.registry(Side.SOURCE)
    if way == "redirect":
        home.says(307, Location=target)
    elif way == "upload":
        home.says(202, Location=target)
    else:
        home.says(401, WWW_Authenticate=f'Bearer realm="{target}"')
    asking = (
        registry.write_blob(APP, BLOB, streamed(b"blob"))
        if way == "upload"
        else registry.resolve(APP, BLOB.digest)
    )
    with pytest.raises(Rejected) as caught:
        await asking
    await endpoint.close()
    assert private.asked == []
    assert not caught.value.retryable


async def test_the_operator_may_allow_a_network(home: Stub, private: Stub):
    home.says(307, Location=f"{private.url}/blob")
    for host in ("127.0.0.1", "localhost"):
        home.says(307, Location=f"http://{host}:{private.url.rpartition(':')[2]}/blob")
        endpoint = open_endpoint("place", home.url, None, allowed_networks=["127.0.0.0/8", "::1/128"])
        assert await endpoint.registry(Side.SOURCE).blob_size(APP, BLOB.digest) == 4
        await endpoint.close()
    assert len(private.asked) == 2


async def test_a_registry_in_a_private_network_may_redirect_to_itself(home: Stub):
    hops = iter([f"{home.url}/second", "/third", "fourth?x=1"])

    async def answer(request: object) -> object:
        from aiohttp import web

        if location := next(hops, None):
            return web.Response(status=302, headers={"Location": location})
        return web.Response(body=b"blob")

    home.answer = answer  # type: ignore[assignment]
    endpoint = open_endpoint("place", home.url, None)
    assert await endpoint.registry(Side.SOURCE).blob_size(APP, BLOB.digest) == 4
    await endpoint.close()
    assert [request.raw_path for request in home.asked[1:]] == ["/second", "/third", "/fourth?x=1"]


async def test_redirects_end_after_five_hops(home: Stub):
    home.says(302, Location="/round")
    endpoint = open_endpoint("place", home.url, None)
    with pytest.raises(Rejected, match="redirects"):
        await endpoint.registry(Side.SOURCE).blob_size(APP, BLOB.digest)
    await endpoint.close()
    assert len(home.asked) == 6


@pytest.mark.parametrize(
    "location",
    ["", "ftp://127.0.0.1/x", "file:///etc/passwd", "http://anna@127.0.0.1/", "http://h:99999/"],
)
async def test_a_location_that_is_not_an_http_url_is_refused(home: Stub, location: str):
    home.says(202, Location=location)
    endpoint = open_endpoint("place", home.url, None)
    with pytest.raises(Rejected):
        await endpoint.registry(Side.DESTINATION).write_blob(APP, BLOB, streamed(b"blob"))
    await endpoint.close()
    assert len([request for request in home.asked if request.method == "PUT"]) == 0


@pytest.mark.parametrize(
    "url", ["", "host", "ftp://host", "http://anna:pw@host", "http://host/path", "http://h:x"]
)
async def test_an_invalid_registry_url_is_refused_and_not_shown(url: str):
    with pytest.raises(InvalidInput) as caught:
        open_endpoint("place", url, None)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("network", ["10.0.0.0/33", "10.0.0.1/8", "everywhere"])
async def test_an_invalid_network_is_refused(network: str):
    with pytest.raises(InvalidInput):
        open_endpoint("place", "http://host", None, allowed_networks=[network])
