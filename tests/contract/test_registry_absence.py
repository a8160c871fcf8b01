"""When a registry's 404 proves that a tag was deleted, and when it does not."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from aiohttp import web

from mesh.errors import AbsenceUnconfirmed, ContentRefused, Denied, ServerFault
from mesh.registry.absence import resolve_confirmed
from mesh.registry.client import RegistryClient, open_endpoint
from schemas.completions import Side
from schemas.names import Repository, Tag
from tests.support import images, registries
from tests.support.manual_clock import ManualClock
from tests.support.registries import Stub

APP, V1 = Repository("team/app"), Tag("v1")
CLOCK = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
PAGE = web.Response, {"status": 404, "text": "404 page not found"}
BASE = web.Response, {"status": 200, "text": "{}"}


def unknown(
    code: str = "MANIFEST_UNKNOWN", status: int = 404
) -> tuple[type[web.Response], dict[str, object]]:
    return web.Response, {"status": status, "text": json.dumps({"errors": [{"code": code, "message": "no"}]})}


def manifest() -> tuple[type[web.Response], dict[str, object]]:
    found = images.image(layers=[b"layer"]).manifest
    return web.Response, {"status": 200, "body": found.body, "headers": {"Content-Type": found.media_type}}


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with registries.stub() as server:
        yield server


@pytest.fixture
async def registry(stub: Stub) -> AsyncIterator[RegistryClient]:
    endpoint = open_endpoint("place", stub.url, None, clock=CLOCK)
    yield endpoint.registry(Side.SOURCE)
    await endpoint.close()


def script(stub: Stub, *answers: tuple[type[web.Response], dict[str, object]]) -> None:
    """Answers one request after the other; the last answer stays."""
    left = list(answers)

    async def answer(_: web.Request) -> web.StreamResponse:
        made, arguments = left.pop(0) if len(left) > 1 else left[0]
        return made(**arguments)  # type: ignore[arg-type]

    stub.answer = answer


@pytest.mark.parametrize("code", ["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"])
async def test_a_registry_that_says_so_twice_has_lost_the_tag(
    stub: Stub, registry: RegistryClient, code: str
) -> None:
    script(stub, unknown(code), unknown(code), BASE, unknown(code), BASE)
    assert await resolve_confirmed(registry, APP, V1, clock=CLOCK) is None
    asked = [(request.method, request.path) for request in stub.asked]
    path = "/v2/team/app/manifests/v1"
    assert asked == [("HEAD", path), ("GET", path), ("GET", "/v2/"), ("GET", path), ("GET", "/v2/")]


async def test_a_404_to_everything_proves_nothing(stub: Stub, registry: RegistryClient) -> None:
    script(stub, PAGE)
    with pytest.raises(AbsenceUnconfirmed, match="page not found") as raised:
        await resolve_confirmed(registry, APP, V1, clock=CLOCK)
    assert raised.value.retryable
    assert raised.value.side is Side.SOURCE


@pytest.mark.parametrize(
    "answers",
    [
        [unknown(), unknown(), PAGE],  # the base of the API is not there
        [unknown(), unknown(), BASE, PAGE],  # the second answer is somebody else's
        [(web.Response, {"status": 404, "text": "<html>no such page</html>"})],
        [(web.Response, {"status": 404, "text": json.dumps({"errors": []})})],
        [(web.Response, {"status": 404})],
    ],
)
async def test_half_of_the_proof_proves_nothing(stub: Stub, registry: RegistryClient, answers: list) -> None:
    script(stub, *answers)
    with pytest.raises(AbsenceUnconfirmed):
        await resolve_confirmed(registry, APP, V1, clock=CLOCK)


@pytest.mark.parametrize(
    "answers", [[manifest()], [unknown(), manifest()], [unknown(), unknown(), BASE, manifest()]]
)
async def test_what_is_there_at_either_look_is_there(
    stub: Stub, registry: RegistryClient, answers: list
) -> None:
    script(stub, *answers)
    found = await resolve_confirmed(registry, APP, V1, clock=CLOCK)
    assert found is not None
    assert found.digest == images.image(layers=[b"layer"]).manifest.digest


@pytest.mark.parametrize(
    ("content_type", "error"), [("text/html", ServerFault), ("application/json", ContentRefused)]
)
async def test_content_that_cannot_be_read_is_not_absent(
    stub: Stub, registry: RegistryClient, content_type: str, error: type[Exception]
) -> None:
    """A web page is a proxy's, and may be the registry's answer again later."""
    script(stub, (web.Response, {"status": 200, "text": "<html>", "content_type": content_type}))
    with pytest.raises(error):
        await resolve_confirmed(registry, APP, V1, clock=CLOCK)


@pytest.mark.parametrize(
    ("answers", "error"),
    [([unknown(), unknown("UNAUTHORIZED", 401)], Denied), ([unknown(), unknown("", 502)], ServerFault)],
)
async def test_a_registry_that_cannot_be_asked_raises(
    stub: Stub, registry: RegistryClient, answers: list, error: type[Exception]
) -> None:
    script(stub, *answers)
    with pytest.raises(error):
        await resolve_confirmed(registry, APP, V1, clock=CLOCK)
