"""Referrers at the real distribution registry (without the API), at the built-in one, and in invalid answers."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from mesh.clock import SystemClock
from mesh.errors import ContentRefused, Denied, Rejected, ServerFault
from mesh.registry import fallback_index
from mesh.registry.client import RegistryClient, open_endpoint
from mesh.registry.manifests import OCI_INDEX
from mesh.registry.referrers import fallback_tag
from schemas.completions import Side
from schemas.names import Repository, Tag
from tests.support import attached, images, registries
from tests.support.attached import SBOM, SIGNATURE, attachment
from tests.support.registries import Stub

APP = Repository("team/app")
IMAGE = images.image(layers=[b"app"])
SUBJECT = IMAGE.digest
ATTACHED = [attachment(IMAGE.manifest, kind, b"body") for kind in (SBOM, SIGNATURE)]
ENTRIES = [attached.entry(each.manifest) for each in ATTACHED]


@pytest.fixture(params=[pytest.param("distribution", marks=pytest.mark.real("docker-registry")), "builtin"])
async def registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RegistryClient]:
    serve = registries.distribution if request.param == "distribution" else registries.builtin
    async with serve(tmp_path) as url:
        endpoint = open_endpoint("place", url, None)
        yield endpoint.registry(Side.DESTINATION)
        await endpoint.close()


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with registries.stub() as server:
        yield server


@pytest.fixture
async def stubbed(stub: Stub) -> AsyncIterator[RegistryClient]:
    endpoint = open_endpoint("place", stub.url, None)
    yield endpoint.registry(Side.SOURCE)
    await endpoint.close()


async def test_a_referrer_is_listed_with_its_type(registry: RegistryClient) -> None:
    await images.push(registry, APP, Tag("v1"), IMAGE)
    assert await registry.referrers(APP, SUBJECT) == []
    for each in ATTACHED:
        await attached.push(registry, APP, IMAGE.manifest, each)
    found = {
        referrer.descriptor: referrer.artifact_type for referrer in await registry.referrers(APP, SUBJECT)
    }
    assert found == {ATTACHED[0].manifest.descriptor: SBOM, ATTACHED[1].manifest.descriptor: SIGNATURE}


async def test_new_referrers_are_added_and_a_complete_list_is_not_rewritten(
    registry: RegistryClient,
) -> None:
    await images.push(registry, APP, Tag("v1"), IMAGE)
    for each in ATTACHED:
        await images.push(registry, APP, each.digest, each)
    theirs = attached.index_of([ENTRIES[0] | {"annotations": {"kept": "as it is"}}])
    tag = fallback_tag(SUBJECT)
    await registry.write_manifest(APP, tag, theirs)
    both = [each.manifest for each in ATTACHED]
    await fallback_index.add(registry, APP, SUBJECT, both, clock=SystemClock())
    written = await registry.read_manifest(APP, tag)
    assert json.loads(written.body)["manifests"] == [*json.loads(theirs.body)["manifests"], ENTRIES[1]]
    await fallback_index.add(registry, APP, SUBJECT, both, clock=SystemClock())
    assert await registry.read_manifest(APP, tag) == written


async def test_an_invalid_list_is_not_overwritten(registry: RegistryClient) -> None:
    await images.push(registry, APP, fallback_tag(SUBJECT), IMAGE)
    with pytest.raises(ContentRefused):
        await fallback_index.add(registry, APP, SUBJECT, [ATTACHED[0].manifest], clock=SystemClock())
    assert await registry.resolve(APP, fallback_tag(SUBJECT)) == IMAGE.manifest.descriptor


async def test_pages_are_read_to_the_last(stub: Stub, stubbed: RegistryClient) -> None:
    async def answer(request: web.Request) -> web.Response:
        last = "last" in request.query
        headers = {} if last else {"Link": f'<{request.path}?last=1>; rel="next"'}
        return web.Response(body=_page(ENTRIES[last : last + 1]), content_type=OCI_INDEX, headers=headers)

    stub.answer = answer
    found = await stubbed.referrers(APP, SUBJECT)
    assert [referrer.descriptor.digest for referrer in found] == [each.digest for each in ATTACHED]
    assert len(stub.asked) == 2


@pytest.mark.parametrize(
    ("status", "body", "content_type"),
    [
        (404, b"404 page not found", "text/plain"),
        (404, b'{"errors":[{"code":"NAME_UNKNOWN"}]}', "application/json"),
        (400, b"", "text/plain"),
        (405, b"", "text/plain"),
        (200, b"<html>hello</html>", "text/html"),
    ],
)
async def test_a_registry_without_the_api_is_asked_for_the_fallback_tag(
    stub: Stub, stubbed: RegistryClient, status: int, body: bytes, content_type: str
) -> None:
    async def answer(request: web.Request) -> web.Response:
        if "/referrers/" in request.path:
            return web.Response(status=status, body=body, content_type=content_type)
        assert request.path.endswith(f"/manifests/{fallback_tag(SUBJECT)}")
        return web.Response(body=_page(ENTRIES), content_type=OCI_INDEX)

    stub.answer = answer
    found = await stubbed.referrers(APP, SUBJECT)
    assert [referrer.descriptor.digest for referrer in found] == [each.digest for each in ATTACHED]


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (403, b"", Denied),
        (503, b"", ServerFault),
        (200, b'{"manifests":[{"digest":"no"}]}', Rejected),
        (200, b'{"manifests":7}', Rejected),
        (200, b"[]", Rejected),
        (200, b"", Rejected),
    ],
)
async def test_an_unclear_answer_is_not_an_empty_list(
    stub: Stub, stubbed: RegistryClient, status: int, body: bytes, error: type[Exception]
) -> None:
    async def answer(request: web.Request) -> web.Response:
        if "/referrers/" in request.path:
            return web.Response(status=status, body=body, content_type=OCI_INDEX)
        return web.Response(status=404)

    stub.answer = answer
    with pytest.raises(error):
        await stubbed.referrers(APP, SUBJECT)


async def test_the_registry_answers_whether_it_maintains_the_list(
    stub: Stub, stubbed: RegistryClient
) -> None:
    manifest = ATTACHED[0].manifest
    stub.says(201, OCI_Subject=SUBJECT)
    assert await stubbed.write_manifest(APP, manifest.digest, manifest) == SUBJECT
    stub.says(201)
    assert await stubbed.write_manifest(APP, manifest.digest, manifest) is None
    stub.says(201, OCI_Subject="none")
    with pytest.raises(Rejected):
        await stubbed.write_manifest(APP, manifest.digest, manifest)


def _page(entries: list[dict[str, object]]) -> bytes:
    return attached.index_of(entries).body
