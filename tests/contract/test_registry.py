"""The registry port's contract, on the real distribution registry and on the built-in one."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.errors import ContentMismatch, MissingParts, NotFound, RegistryError, Rejected
from mesh.registry.client import RegistryClient, open_endpoint
from mesh.registry.port import Descriptor, Manifest, digest_of
from schemas.completions import Side
from schemas.names import Digest, MediaType, Repository, Tag
from tests.support import images, registries

APP, OTHER = Repository("team/app"), Repository("team/other")
LATEST = Tag("latest")
BYTES = MediaType("application/octet-stream")


@pytest.fixture(params=[pytest.param("distribution", marks=pytest.mark.real("docker-registry")), "builtin"])
async def registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RegistryClient]:
    serve = registries.distribution if request.param == "distribution" else registries.builtin
    async with serve(tmp_path) as url:
        endpoint = open_endpoint("place", url, None)
        yield endpoint.registry(Side.DESTINATION)
        await endpoint.close()


def described(body: bytes, algorithm: str = "sha256") -> Descriptor:
    return Descriptor(BYTES, digest_of(body, algorithm), len(body))


async def streamed(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_an_image_is_written_and_read_unchanged(registry: RegistryClient):
    pushed = images.image(layers=[b"one", b"two"])
    await images.push(registry, APP, LATEST, pushed)
    assert await registry.resolve(APP, LATEST) == pushed.manifest.descriptor
    assert await registry.resolve(APP, pushed.digest) == pushed.manifest.descriptor
    assert await registry.read_manifest(APP, LATEST) == pushed.manifest
    assert await registry.read_manifest(APP, pushed.digest) == pushed.manifest


async def test_an_index_needs_its_children_first(registry: RegistryClient):
    child = images.image(layers=[b"layer"])
    parent = images.index([child])
    with pytest.raises(MissingParts) as caught:
        await registry.write_manifest(APP, LATEST, parent.manifest)
    assert caught.value.side is Side.DESTINATION
    await images.push(registry, APP, LATEST, parent)
    assert (await registry.read_manifest(APP, LATEST)).body == parent.manifest.body


async def test_a_manifest_needs_its_blobs_first(registry: RegistryClient):
    with pytest.raises(MissingParts):
        await registry.write_manifest(APP, LATEST, images.image(layers=[b"nowhere"]).manifest)
    assert await registry.resolve(APP, LATEST) is None


async def test_missing_content_is_none_or_not_found(registry: RegistryClient):
    absent = digest_of(b"absent")
    assert await registry.resolve(APP, LATEST) is None
    assert await registry.resolve(APP, absent) is None
    assert await registry.blob_size(APP, absent) is None
    with pytest.raises(NotFound):
        await registry.read_manifest(APP, LATEST)
    with pytest.raises(NotFound):
        async with registry.read_blob(APP, Descriptor(BYTES, absent, 6)):
            pass
    with pytest.raises(NotFound):
        [tag async for tag in registry.tags(APP)]


@pytest.mark.parametrize("size", [0, 1, 65_536, 5_000_000])
async def test_a_blob_of_any_size_is_written_and_read(registry: RegistryClient, size: int):
    body = os.urandom(size)
    blob = described(body)
    await registry.write_blob(
        APP, blob, streamed(*(body[at : at + 300_000] for at in range(0, size, 300_000)))
    )
    assert await registry.blob_size(APP, blob.digest) == size
    async with registry.read_blob(APP, blob) as chunks:
        read = [chunk async for chunk in chunks]
    assert b"".join(read) == body
    assert max(map(len, read), default=0) <= 1024 * 1024


async def test_a_blob_is_piped_from_repository_to_repository(registry: RegistryClient):
    body = os.urandom(3_000_000)
    blob = described(body)
    await registry.write_blob(APP, blob, streamed(body))
    async with registry.read_blob(APP, blob) as chunks:
        await registry.write_blob(OTHER, blob, chunks)
    assert await registry.blob_size(OTHER, blob.digest) == len(body)


async def test_a_blob_is_mounted_from_another_repository(registry: RegistryClient):
    blob = described(b"shared")
    await registry.write_blob(APP, blob, streamed(b"shared"))
    assert await registry.mount_blob(OTHER, blob.digest, APP)
    assert await registry.blob_size(OTHER, blob.digest) == 6


async def test_a_failed_mount_is_reported_and_leaves_no_open_upload(registry: RegistryClient, tmp_path: Path):
    assert not await registry.mount_blob(OTHER, digest_of(b"absent"), APP)
    # Distribution 2.8 keeps an empty hash state of a cancelled upload; its data is deleted.
    assert not [*tmp_path.rglob("_uploads/*/data"), *tmp_path.rglob("incoming/*")]


async def test_an_upload_is_opened_only_for_a_missing_blob(registry: RegistryClient, tmp_path: Path):
    blob = described(b"wanted")
    upload = await registry.begin_upload(APP, blob.digest)
    assert upload is not None
    await registry.write_blob(APP, blob, streamed(b"wanted"), upload)
    assert await registry.blob_size(APP, blob.digest) == 6
    assert await registry.begin_upload(APP, blob.digest) is None
    another = await registry.begin_upload(OTHER, blob.digest)
    assert another is not None  # what one repository has the other one has not
    await registry.cancel_upload(OTHER, another)
    assert await registry.blob_size(OTHER, blob.digest) is None
    assert not [*tmp_path.rglob("_uploads/*/data"), *tmp_path.rglob("incoming/*")]


class SourceBroke(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1_000_000, 2_000_000])
async def test_a_failing_source_commits_nothing_and_its_error_is_raised(
    registry: RegistryClient, tmp_path: Path, after: int
):
    body = os.urandom(2_000_000)
    blob = described(body)

    async def breaking() -> AsyncIterator[bytes]:
        for at in range(0, after, 500_000):
            yield body[at : at + 500_000]
        raise SourceBroke

    with pytest.raises(SourceBroke):
        await registry.write_blob(APP, blob, breaking())
    assert await registry.blob_size(APP, blob.digest) is None
    assert stored_under(tmp_path, blob.digest) == []
    await registry.write_blob(APP, blob, streamed(body))
    assert await registry.blob_size(APP, blob.digest) == len(body)


async def test_a_cancelled_upload_commits_nothing(registry: RegistryClient, tmp_path: Path):
    blob = described(bytes(1_000_000))
    started = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield bytes(500_000)
        started.set()
        await asyncio.Event().wait()

    upload = asyncio.ensure_future(registry.write_blob(APP, blob, stuck()))
    await started.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert await registry.blob_size(APP, blob.digest) is None
    assert stored_under(tmp_path, blob.digest) == []


@pytest.mark.parametrize("parts", [[b"short"], [b"long", b"enough", b"and more"], []])
async def test_a_stream_of_a_wrong_size_is_refused(registry: RegistryClient, parts: list[bytes]):
    blob = described(b"ten bytes.")
    with pytest.raises(ContentMismatch):
        await registry.write_blob(APP, blob, streamed(*parts))
    assert await registry.blob_size(APP, blob.digest) is None


async def test_bytes_that_do_not_match_their_digest_are_refused_by_the_registry(registry: RegistryClient):
    blob = Descriptor(BYTES, digest_of(b"wanted"), 6)
    with pytest.raises(ContentMismatch) as caught:
        await registry.write_blob(APP, blob, streamed(b"forged"))
    assert caught.value.side is Side.DESTINATION
    assert await registry.blob_size(APP, blob.digest) is None


async def test_a_descriptor_with_a_wrong_size_is_a_mismatch_before_any_byte(registry: RegistryClient):
    blob = described(b"content")
    await registry.write_blob(APP, blob, streamed(b"content"))
    for size in (3, 300):
        with pytest.raises(ContentMismatch):
            async with registry.read_blob(APP, Descriptor(BYTES, blob.digest, size)):
                pass


async def test_deleting_by_digest_deletes_the_tags(registry: RegistryClient):
    image = images.image(layers=[b"deleted soon"])
    for tag in ("one", "two"):
        await images.push(registry, APP, Tag(tag), image)
    await registry.delete_manifest(APP, image.digest)
    assert [await registry.resolve(APP, name) for name in (image.digest, Tag("one"), Tag("two"))] == [
        None
    ] * 3
    with pytest.raises(NotFound):
        await registry.delete_manifest(APP, image.digest)


async def test_a_tag_is_deleted_alone_or_not_at_all(registry: RegistryClient):
    image = images.image(layers=[b"stays"])
    for tag in ("one", "two"):
        await images.push(registry, APP, Tag(tag), image)
    try:
        await registry.delete_manifest(APP, Tag("one"))
        kept = ["two"]
    except Rejected:  # as docker-registry 2.8
        kept = ["one", "two"]
    assert sorted([tag async for tag in registry.tags(APP)]) == kept
    assert await registry.resolve(APP, image.digest) is not None


async def test_all_tags_are_listed(registry: RegistryClient):
    pushed = images.image(layers=[b"layer"])
    names = {f"v{number}" for number in range(7)}
    for name in names:
        await images.push(registry, APP, Tag(name), pushed)
    assert {tag async for tag in registry.tags(APP)} == names


async def test_a_manifest_that_does_not_match_its_digest_is_refused(registry: RegistryClient):
    pushed = images.image(layers=[b"layer"])
    await images.push(registry, APP, LATEST, pushed)
    forged = Manifest(pushed.manifest.media_type, digest_of(b"other"), pushed.manifest.body)
    with pytest.raises(RegistryError):
        await registry.write_manifest(APP, forged.digest, forged)
    assert await registry.resolve(APP, forged.digest) is None


async def test_concurrent_transfers_do_not_mix(registry: RegistryClient):
    bodies = [hashlib.sha256(bytes([number])).digest() * 20_000 for number in range(12)]

    async def there_and_back(body: bytes) -> bytes:
        await registry.write_blob(APP, described(body), streamed(body))
        async with registry.read_blob(APP, described(body)) as chunks:
            return b"".join([chunk async for chunk in chunks])

    assert await asyncio.gather(*map(there_and_back, bodies)) == bodies


async def test_a_reader_that_stops_early_leaves_the_client_usable(registry: RegistryClient):
    body = os.urandom(4_000_000)
    await registry.write_blob(APP, described(body), streamed(body))
    async with registry.read_blob(APP, described(body)) as chunks:
        assert body.startswith(await anext(chunks))
    assert await registry.blob_size(APP, digest_of(body)) == len(body)


def stored_under(folder: Path, digest: Digest) -> list[Path]:
    return list(folder.rglob(f"*{digest.partition(':')[2]}*"))
