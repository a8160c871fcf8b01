"""Images that tests build from bytes of layers, and how to push them."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from mesh.registry.manifests import OCI_INDEX, OCI_MANIFEST
from mesh.registry.port import Descriptor, Manifest, Registry, digest_of
from schemas.names import Digest, MediaType, Repository, Tag

IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Image:
    """A manifest with the blobs it names or, for an index, its children."""

    manifest: Manifest
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    blob_descriptors: tuple[Descriptor, ...] = ()
    children: tuple["Image", ...] = ()

    @property
    def digest(self) -> Digest:
        """The digest of the manifest."""
        return self.manifest.digest


def image(*, layers: list[bytes], config_type: str = IMAGE_CONFIG, config: bytes | None = None) -> Image:
    """Returns an image. Its config names the layers by default, so that different layers give different images."""
    body = config if config is not None else _config(layers)
    parts = [(config_type, body), *((LAYER, layer) for layer in layers)]
    described = [Descriptor(MediaType(kind), digest_of(part), len(part)) for kind, part in parts]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _as_json(described[0]),
        "layers": [_as_json(part) for part in described[1:]],
    }
    unique = {part.digest: part for part in described}
    return Image(
        _manifest(OCI_MANIFEST, document),
        {digest_of(part): part for _, part in parts},
        tuple(unique.values()),
    )


def index(children: list[Image]) -> Image:
    """Returns an image index over `children`, each of another platform."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {
                **_as_json(child.manifest.descriptor),
                "platform": {"os": "linux", "architecture": f"arch{number}"},
            }
            for number, child in enumerate(children)
        ],
    }
    return Image(_manifest(OCI_INDEX, document), children=tuple(children))


async def push(registry: Registry, repository: Repository, reference: Tag | Digest, pushed: Image) -> None:
    """Pushes as a client does: children by digest, then blobs, then the manifest."""
    for child in pushed.children:
        await push(registry, repository, child.digest, child)
    for part in pushed.blob_descriptors:
        if await registry.blob_size(repository, part.digest) is None:
            await registry.write_blob(repository, part, _once(pushed.blobs[part.digest]))
    await registry.write_manifest(repository, reference, pushed.manifest)


def write_layout(folder: Path, tagged: dict[str, Image]) -> Path:
    """Writes an OCI image layout with these images by tag, as `skopeo copy oci:...` reads it."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def keep(kept: Image) -> None:
        for child in kept.children:
            keep(child)
        for digest, body in {**kept.blobs, kept.digest: kept.manifest.body}.items():
            (blobs / digest.partition(":")[2]).write_bytes(body)

    entries = []
    for tag, kept in tagged.items():
        keep(kept)
        name = {"annotations": {"org.opencontainers.image.ref.name": tag}}
        entries.append({**_as_json(kept.manifest.descriptor), **name})
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    return folder


def _config(layers: list[bytes]) -> bytes:
    diff_ids = [digest_of(layer) for layer in layers]
    document = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    return json.dumps(document).encode()


def _manifest(media_type: MediaType, document: dict[str, object]) -> Manifest:
    body = json.dumps(document).encode()
    return Manifest(media_type, digest_of(body), body)


def _as_json(part: Descriptor) -> dict[str, object]:
    return {"mediaType": part.media_type, "digest": part.digest, "size": part.size}


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body
