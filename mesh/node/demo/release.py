"""The images of the demo, with random layers, pushed slowly enough to watch them being copied."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import orjson
from rich.console import Console

from mesh.clock import SystemClock
from mesh.node.cli.output import size
from mesh.node.demo import topology
from mesh.node.demo.stage import Stage
from mesh.registry.manifests import OCI_MANIFEST
from mesh.registry.port import Descriptor, Manifest, digest_of
from schemas.names import Digest, MediaType, Repository, Tag

_LAYERS, _LAYER_SIZE = 4, 6 * topology.MIB
_SPEED = 8 * topology.MIB  # bytes per second of the client that pushes
_CHUNK = 256 * 1024
_CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class Image:
    """An image with the bytes of its blobs by digest."""

    repository: Repository
    manifest: Manifest
    blobs: tuple[Descriptor, ...]
    bodies: dict[Digest, bytes]

    @property
    def size(self) -> int:
        """The size of all blobs in bytes."""
        return sum(blob.size for blob in self.blobs)


def make(repository: str) -> Image:
    """Returns an image with random layers: four for a `server`, else one."""
    layers = [os.urandom(_LAYER_SIZE) for _ in range(_LAYERS if repository.endswith("server") else 1)]
    diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config = orjson.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    )
    blobs = [_descriptor("application/vnd.oci.image.config.v1+json", config)]
    blobs += [_descriptor("application/vnd.oci.image.layer.v1.tar", layer) for layer in layers]
    parts = [{"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size} for blob in blobs]
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": parts[0], "layers": parts[1:]}
    body = orjson.dumps(document)
    bodies = {blob.digest: found for blob, found in zip(blobs, [config, *layers], strict=True)}
    return Image(Repository(repository), Manifest(OCI_MANIFEST, digest_of(body), body), tuple(blobs), bodies)


async def push(stage: Stage, image: Image, tags: tuple[str, ...] | str, console: Console) -> None:
    """Pushes an image to Beijing as a client does: blob by blob, then the manifest with its tags."""
    names = (tags,) if isinstance(tags, str) else tags
    count = len(image.blobs) - 1
    layers = f"{count} layer{'s' if count > 1 else ''} of {size(_LAYER_SIZE)}"
    console.print(f"[bold]pushing[/bold] {image.repository} as {' and '.join(names)}: {layers}")
    async with stage.client(topology.CN) as registry:
        for blob in image.blobs:
            await registry.write_blob(image.repository, blob, _throttled(image.bodies[blob.digest]))
        for name in names:
            await registry.write_manifest(image.repository, Tag(name), image.manifest)
    console.print(f"  pushed {image.repository}")


async def _throttled(body: bytes) -> AsyncIterator[bytes]:
    start = _CLOCK.monotonic()
    for at in range(0, len(body), _CHUNK):
        yield body[at : at + _CHUNK]
        await asyncio.sleep(max(0.0, at / _SPEED - (_CLOCK.monotonic() - start)))


def _descriptor(media_type: str, body: bytes) -> Descriptor:
    return Descriptor(MediaType(media_type), digest_of(body), len(body))
