"""The requests that bulk work sends to the registries are counted, so that an additional or missing one shows."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.names import Digest, Tag
from tests.flow.test_agent import client
from tests.flow.test_executions import APP, Mesh, _mesh
from tests.support import attached, images
from tests.support.attached import SBOM, attachment

IMAGES = 10


@pytest.fixture(params=[True, False], ids=["with the referrers API", "without"])
async def mesh(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Mesh]:
    async with _mesh(tmp_path, referrers=request.param) as found:
        found.producer()
        found.agent()
        await found.rule()
        for number in range(IMAGES):
            await found.push(f"v{number}", *(f"{number} {layer}".encode() for layer in range(3)))
        yield found


def _has_api(mesh: Mesh) -> bool:
    return mesh.source._manifests._has_referrers


async def _sync(mesh: Mesh, **asked: str) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Runs the rule; returns the requests to both registries meanwhile, without pings, and how the tasks ended."""
    registries = (mesh.source, mesh.destination)
    before = [Counter(it.traffic.requests) for it in registries]
    ended = await mesh.ended(await mesh.sync(**asked))
    assert ended["status"] == "Succeed"
    source, destination = (it.traffic.requests - old for it, old in zip(registries, before, strict=True))
    asked_for = [
        {" ".join(key): count for key, count in it.items() if key[1] != "base"}
        for it in (source, destination)
    ]
    return asked_for[0], asked_for[1], {name: ended[name] for name in ("succeed", "skipped")}


async def _attach(mesh: Mesh, tag: str) -> Digest:
    async with client(mesh.source) as source:
        subject = await source.read_manifest(APP, Tag(tag))
        sbom = attachment(subject, SBOM, b"since")
        await attached.push(source, APP, subject, sbom)
    return sbom.digest


async def _is_listed_there(mesh: Mesh, tag: str, referrer: Digest) -> bool:
    async with client(mesh.destination) as destination:
        subject = await destination.resolve(APP, Tag(tag))
        assert subject is not None
        found = await destination.referrers(APP, subject.digest)
    return [it.descriptor.digest for it in found] == [referrer]


async def test_a_whole_copy(mesh: Mesh) -> None:
    """An image of three layers and a config costs the destination 13 requests, the source 8 and those for referrers."""
    source, destination, ended = await _sync(mesh)
    assert ended == {"succeed": IMAGES, "skipped": 0}
    assert destination.pop("HEAD blob") < 2 * 4 + 1  # until it is known that it mounts
    assert destination == {
        "HEAD manifest": 3 * IMAGES,  # the tag, the digest, and the tag when it was written
        "POST uploads": 4 * IMAGES + 1,  # one request asks whether it is there, and where to send it
        "PUT upload": 4 * IMAGES,
        "PUT manifest": 2 * IMAGES,  # by digest, so that referrers can follow it, then the tag
    }
    assert source == {
        "GET catalog": 1,
        "GET tags": 1,
        "HEAD manifest": 6
        * IMAGES,  # listed, resolved, for cosign's three tags, and after the tag was written
        "GET manifest": (1 if _has_api(mesh) else 2) * IMAGES,
        "GET referrers": IMAGES,
        "GET blob": 4 * IMAGES,
    }


async def test_a_run_that_finds_nothing_to_do(mesh: Mesh) -> None:
    await _sync(mesh)
    source, destination, ended = await _sync(mesh)
    assert ended == {"succeed": 0, "skipped": IMAGES}
    assert destination == {"HEAD manifest": IMAGES}
    looked = source.pop("GET referrers", 0)
    assert source == {"GET catalog": 1, "GET tags": 1, "HEAD manifest": IMAGES}
    assert looked == IMAGES if _has_api(mesh) else looked == 0  # a minute ago it knew no such request


async def test_what_was_attached_since_is_found_by_the_next_run(mesh: Mesh) -> None:
    await _sync(mesh)
    await _sync(mesh)
    sbom = await _attach(mesh, "v3")
    _, _, ended = await _sync(mesh, tag="v*")
    assert ended == {"succeed": 1, "skipped": IMAGES - 1}
    assert await _is_listed_there(mesh, "v3", sbom)


async def test_what_was_attached_since_is_found_of_a_tag_that_was_named(mesh: Mesh) -> None:
    """The tags of the repository are not listed then."""
    await _sync(mesh)
    sbom = await _attach(mesh, "v3")
    _, _, ended = await _sync(mesh, tag="v3")
    assert ended == {"succeed": 1, "skipped": 0}
    assert await _is_listed_there(mesh, "v3", sbom)


async def test_shared_layers_are_looked_up_and_not_uploaded_again(mesh: Mesh) -> None:
    await _sync(mesh)
    for tag in ("w1", "w2"):
        await mesh.push(tag, b"0 0", b"0 1", tag.encode())
    _, destination, ended = await _sync(mesh, tag="w*")
    assert ended == {"succeed": 2, "skipped": 0}
    shared = len(images.image(layers=[b"0 0", b"0 1"]).blob_descriptors) - 1
    assert destination["HEAD blob"] == 2 * shared
    assert (
        destination["POST uploads"] == destination["PUT upload"] == 2 * 2
    )  # the third layer, and the config
