"""Credentials and tokens: how they are used, renewed and never sent to another host."""

import asyncio
import base64
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from mesh.credentials.credentials import CredentialProvider, Credentials, RefreshingCredentials
from mesh.errors import Denied, InvalidInput, RegistryError, Rejected, ServerFault, Throttled
from mesh.registry.client import RegistryEndpoint, open_endpoint
from mesh.registry.port import Descriptor, digest_of
from schemas.completions import Side
from schemas.names import MediaType, Repository, Tag
from tests.support import images, registries
from tests.support.manual_clock import ManualClock
from tests.support.registries import Stub

APP, OTHER = Repository("team/app"), Repository("team/other")
LATEST = Tag("latest")
ANNA = Credentials("anna", "s3cret:with/colon")
BASIC = "Basic " + base64.b64encode(b"anna:s3cret:with/colon").decode()
BLOB = Descriptor(MediaType("application/octet-stream"), digest_of(b"blob"), 4)
HERE = ["127.0.0.0/8"]


@asynccontextmanager
async def opened(
    url: str, credentials: CredentialProvider | None, **more: object
) -> AsyncIterator[RegistryEndpoint]:
    endpoint = open_endpoint("place", url, credentials, **more)  # type: ignore[arg-type]
    try:
        yield endpoint
    finally:
        await endpoint.close()


async def streamed(body: bytes) -> AsyncIterator[bytes]:
    yield body


@pytest.mark.real("docker-registry")
@pytest.mark.real("htpasswd")
async def test_basic_authentication_needs_the_right_password(tmp_path: Path):
    command = ["htpasswd", "-Bbn", "-C", "4", "anna", ANNA.password]
    users = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    pushed = images.image(layers=[b"layer"])
    async with registries.distribution(tmp_path, htpasswd=users) as url:
        async with opened(url, ANNA) as endpoint:
            await endpoint.ping()
            await images.push(endpoint.registry(Side.DESTINATION), APP, LATEST, pushed)
            assert await endpoint.registry(Side.SOURCE).read_manifest(APP, LATEST) == pushed.manifest
        for wrong in (Credentials("anna", "guess"), Credentials(None, "guess"), None):
            async with opened(url, wrong) as endpoint:
                with pytest.raises(Denied) as caught:
                    await endpoint.ping()
                assert caught.value.status == 401
                assert "guess" not in str(caught.value)


@pytest.mark.real("docker-registry")
@pytest.mark.real("htpasswd")
@pytest.mark.parametrize("first", [Credentials("anna", "old"), Credentials(None, "old"), None])
async def test_corrected_credentials_are_used_without_a_restart(tmp_path: Path, first: Credentials | None):
    command = ["htpasswd", "-Bbn", "-C", "4", "anna", ANNA.password]
    users = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    known: list[Credentials | None] = [first]
    async with (
        registries.distribution(tmp_path, htpasswd=users) as url,
        opened(url, RefreshingCredentials(lambda: known[-1])) as endpoint,
    ):
        for _ in range(2):
            with pytest.raises(Denied):
                await endpoint.ping()
        known.append(ANNA)
        await endpoint.ping()


class TokenServer:
    """A registry and its token server in one stub; it has every blob and accepts every upload."""

    def __init__(self, stub: Stub) -> None:
        self.stub = stub
        self.realm = f"{stub.url}/token?fixed=1"
        self.asked: list[web.Request] = []  # for tokens
        self.scopes: dict[str, str] = {}  # by token, while it is good
        self.answer: dict[str, object] = {"expires_in": 300}
        stub.answer = self.handle

    async def handle(self, request: web.Request) -> web.StreamResponse:
        return self.issue(request) if request.path == "/token" else self.guard(request)

    def issue(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        token = f"t{len(self.asked)}"
        self.scopes[token] = " ".join(request.query.getall("scope", []))
        return web.json_response({"token": token} | self.answer)

    def guard(self, request: web.Request) -> web.StreamResponse:
        wanted = f"repository:{APP}:pull" + (",push" if request.method in ("PUT", "POST") else "")
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if wanted not in self.scopes.get(token, "").split():
            asking = f'Bearer realm="{self.realm}",service="stub, inc",scope="{wanted}"'
            return web.Response(status=401, headers={"WWW-Authenticate": asking})
        if request.method == "POST":
            return web.Response(
                status=201 if "mount" in request.query else 202, headers={"Location": "/up?state=1"}
            )
        if request.method == "PUT":
            return web.Response(status=201)
        return web.Response(body=b"blob")


@pytest.fixture
async def server() -> AsyncIterator[TokenServer]:
    async with registries.stub() as stub:
        yield TokenServer(stub)


async def test_concurrent_requests_of_one_scope_fetch_one_token(server: TokenServer):
    async with opened(server.stub.url, ANNA) as endpoint:
        registry = endpoint.registry(Side.SOURCE)
        assert await registry.blob_size(APP, BLOB.digest) == 4
        sizes = await asyncio.gather(*(registry.blob_size(APP, BLOB.digest) for _ in range(10)))
        assert sizes == [4] * 10
        await asyncio.gather(*(registry.write_blob(APP, BLOB, streamed(b"blob")) for _ in range(5)))
    assert [request.query.getall("scope") for request in server.asked] == [
        ["repository:team/app:pull"],
        ["repository:team/app:pull,push"],
    ]
    first = server.asked[0]
    assert first.headers["Authorization"] == BASIC
    assert (first.query["service"], first.query["fixed"]) == ("stub, inc", "1")
    to_registry = [it for it in server.stub.asked if it.path != "/token"]
    assert not [it for it in to_registry if it.headers.get("Authorization", "").startswith("Basic")]


async def test_without_credentials_an_anonymous_token_is_fetched(server: TokenServer):
    async with opened(server.stub.url, None) as endpoint:
        assert await endpoint.registry(Side.SOURCE).blob_size(APP, BLOB.digest) == 4
    assert "Authorization" not in server.asked[0].headers


async def test_a_mount_needs_scopes_of_both_repositories(server: TokenServer):
    async with opened(server.stub.url, ANNA) as endpoint:
        assert await endpoint.registry(Side.DESTINATION).mount_blob(APP, BLOB.digest, OTHER)
    assert server.asked[0].query.getall("scope") == [
        "repository:team/app:pull,push",
        "repository:team/other:pull",
    ]


@pytest.mark.parametrize(("answer", "lives"), [({"expires_in": 300}, 300), ({}, 60), ({"expires_in": 0}, 60)])
async def test_a_token_is_replaced_shortly_before_it_expires(
    server: TokenServer, answer: dict[str, object], lives: int
):
    server.answer = answer
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    async with opened(server.stub.url, ANNA, clock=clock) as endpoint:
        registry = endpoint.registry(Side.SOURCE)
        await registry.blob_size(APP, BLOB.digest)
        await clock.sleep(lives - 20)
        await registry.blob_size(APP, BLOB.digest)
        assert len(server.asked) == 1
        await clock.sleep(10)
        await registry.blob_size(APP, BLOB.digest)
        assert len(server.asked) == 2


async def test_a_refused_token_is_replaced_once(server: TokenServer):
    server.answer = {"access_token": None, "expires_in": 300}
    async with opened(server.stub.url, ANNA) as endpoint:
        registry = endpoint.registry(Side.SOURCE)
        await registry.blob_size(APP, BLOB.digest)
        server.scopes.clear()
        assert await registry.blob_size(APP, BLOB.digest) == 4
        assert len(server.asked) == 2
        server.issue = lambda request: web.json_response({"token": "useless"})  # type: ignore[method-assign]
        server.scopes.clear()
        with pytest.raises(Denied):
            await registry.blob_size(APP, BLOB.digest)


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, Denied), (403, Denied), (404, Denied), (307, Denied), (429, Throttled), (503, ServerFault)],
)
async def test_each_refusal_of_a_token_server_has_its_own_error(
    server: TokenServer, status: int, error: type[RegistryError]
):
    server.issue = lambda request: web.Response(status=status)  # type: ignore[method-assign]
    async with opened(server.stub.url, ANNA) as endpoint:
        with pytest.raises(error) as caught:
            await endpoint.registry(Side.DESTINATION).blob_size(APP, BLOB.digest)
    assert caught.value.side is Side.DESTINATION


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"token": 7}', b'{"token": "a\\r\\nX-Evil: 1"}', b"{" * 5000]
)
async def test_an_invalid_token_is_refused(server: TokenServer, body: bytes):
    server.issue = lambda request: web.Response(body=body)  # type: ignore[method-assign]
    async with opened(server.stub.url, ANNA) as endpoint:
        with pytest.raises(Denied):
            await endpoint.registry(Side.SOURCE).blob_size(APP, BLOB.digest)


async def test_a_foreign_realm_gets_no_credentials_unless_the_operator_names_it(server: TokenServer):
    async with registries.stub() as thief:
        thief.says(body=b'{"token": "stolen"}')
        server.realm = f"{thief.url}/token"
        async with opened(server.stub.url, ANNA, allowed_networks=HERE) as endpoint:
            for _ in range(2):  # nor is it remembered
                with pytest.raises(Rejected):
                    await endpoint.registry(Side.SOURCE).blob_size(APP, BLOB.digest)
        assert thief.asked == []
        async with opened(server.stub.url, ANNA, realms=[thief.url]) as endpoint:
            with pytest.raises(Denied):  # its token opens nothing here
                await endpoint.registry(Side.SOURCE).blob_size(APP, BLOB.digest)
        assert thief.authorizations() == [BASIC]


@pytest.mark.parametrize("credentials", [ANNA, None])
async def test_a_realm_with_a_user_is_refused(server: TokenServer, credentials: Credentials | None):
    server.realm = server.realm.replace("://", "://eve:secret@")
    async with opened(server.stub.url, credentials) as endpoint:
        with pytest.raises(Rejected, match="user") as caught:
            await endpoint.registry(Side.SOURCE).blob_size(APP, BLOB.digest)
    assert "secret" not in str(caught.value)


async def test_a_token_server_cannot_redirect_the_password(server: TokenServer):
    async with registries.stub() as thief:
        server.issue = lambda request: web.Response(status=307, headers={"Location": thief.url})  # type: ignore[method-assign]
        async with opened(server.stub.url, ANNA, allowed_networks=HERE) as endpoint:
            with pytest.raises(Denied):
                await endpoint.registry(Side.SOURCE).blob_size(APP, BLOB.digest)
        assert thief.asked == []


@pytest.mark.parametrize("credentials", [ANNA, Credentials(None, "a-token")])
async def test_a_foreign_redirect_gets_no_credentials_and_no_answer_to_its_challenge(
    credentials: Credentials,
):
    async with registries.stub() as home, registries.stub() as elsewhere:

        async def redirect(request: web.Request) -> web.StreamResponse:
            if "Authorization" not in request.headers:
                return web.Response(status=401, headers={"WWW-Authenticate": "Basic realm=x"})
            return web.Response(status=307, headers={"Location": f"{elsewhere.url}/bucket/blob?sig=a%2Fb%3D"})

        home.answer = redirect
        elsewhere.says(body=b"blob")
        async with opened(home.url, credentials, allowed_networks=HERE) as endpoint:
            registry = endpoint.registry(Side.SOURCE)
            async with registry.read_blob(APP, BLOB) as chunks:
                assert b"".join([chunk async for chunk in chunks]) == b"blob"
            assert elsewhere.asked[0].raw_path == "/bucket/blob?sig=a%2Fb%3D"
            elsewhere.says(401, WWW_Authenticate='Basic realm="give me more"')
            with pytest.raises(Denied):
                await registry.blob_size(APP, BLOB.digest)
        assert elsewhere.authorizations() == [None, None]


async def test_a_redirect_back_from_a_foreign_host_gets_no_credentials():
    async with registries.stub() as home, registries.stub() as elsewhere:
        home.says(307, Location=f"{elsewhere.url}/x")
        elsewhere.says(307, Location=f"{home.url}/v2/secret/blobs/{BLOB.digest}")
        async with opened(home.url, Credentials(None, "a-token"), allowed_networks=HERE) as endpoint:
            with pytest.raises(Rejected, match="redirects"):
                await endpoint.registry(Side.SOURCE).blob_size(APP, BLOB.digest)
        assert home.authorizations() == ["Bearer a-token", None, None]
        assert elsewhere.authorizations() == [None, None, None]


async def test_an_upload_to_a_foreign_host_gets_no_credentials():
    async with registries.stub() as home, registries.stub() as elsewhere:
        home.says(202, Location=f"{elsewhere.url}/upload?state=x%2Fy")
        elsewhere.says(201)
        async with opened(home.url, Credentials(None, "a-token"), allowed_networks=HERE) as endpoint:
            await endpoint.registry(Side.DESTINATION).write_blob(APP, BLOB, streamed(b"blob"))
        assert elsewhere.asked[0].raw_path == f"/upload?state=x%2Fy&digest={BLOB.digest}"
        assert elsewhere.authorizations() == [None]


async def test_cookies_are_not_kept():
    async with registries.stub() as home:
        home.says(200, Set_Cookie="session=1; Path=/")
        async with opened(home.url, None) as endpoint:
            await endpoint.ping()
            await endpoint.ping()
        assert all("Cookie" not in request.headers for request in home.asked)
        assert home.asked[0].headers["Accept-Encoding"] == "identity"
        assert home.asked[0].headers["User-Agent"].startswith("regmesh/")


async def test_a_token_is_requested_with_the_current_credentials(server: TokenServer):
    known = [Credentials("anna", "old")]
    async with opened(server.stub.url, RefreshingCredentials(lambda: known[-1])) as endpoint:
        registry = endpoint.registry(Side.SOURCE)
        assert await registry.blob_size(APP, BLOB.digest) == 4
        known.append(ANNA)
        assert await registry.blob_size(APP, BLOB.digest) == 4  # with the cached token
        await registry.write_blob(APP, BLOB, streamed(b"blob"))
        assert await registry.blob_size(APP, BLOB.digest) == 4  # no longer with what the old ones got
    assert [request.headers["Authorization"] == BASIC for request in server.asked] == [False, True, True]


async def test_credentials_stay_while_their_source_cannot_be_read(server: TokenServer):
    readable = [ANNA]

    def look_up() -> Credentials:
        if not readable:
            raise InvalidInput("the file is being replaced")
        return readable.pop()

    async with opened(server.stub.url, RefreshingCredentials(look_up)) as endpoint:
        assert await endpoint.registry(Side.SOURCE).blob_size(APP, BLOB.digest) == 4
    assert [request.headers["Authorization"] for request in server.asked] == [BASIC]
