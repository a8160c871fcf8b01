"""Images with labels and platforms, and indexes over them, as builders push them."""

import json
from typing import Any

from mesh.registry.manifests import OCI_INDEX
from mesh.registry.port import Manifest, digest_of
from tests.support import images

NOWHERE = "unknown/unknown"  # the platform of BuildKit's attestations


def image(platform: str, *, labels: dict[str, str] | None = None, annotations: Any = None) -> images.Image:
    """Returns a small image that differs by platform and labels."""
    config = {**as_json(platform), "config": {"Labels": labels}, "rootfs": {"type": "layers", "diff_ids": []}}
    layer = f"layer of {platform} {labels}".encode()
    made = images.image(layers=[layer], config=json.dumps(config).encode())
    return made if annotations is None else changed(made, annotations=annotations)


def index(children: dict[str, images.Image], **fields: Any) -> images.Image:
    """Returns an index over children by platform; the entry of a key that begins with `-` names no platform."""
    entries = []
    for platform, child in children.items():
        found = child.manifest.descriptor
        entry: dict[str, Any] = {"mediaType": found.media_type, "digest": found.digest, "size": found.size}
        entries.append(entry if platform.startswith("-") else {**entry, "platform": as_json(platform)})
    return index_of(entries, list(children.values()), **fields)


def attested(children: dict[str, images.Image]) -> tuple[images.Image, dict[str, images.Image]]:
    """Returns an index as BuildKit pushes it, with an attestation for each image, and the attestations by platform."""
    plain = index(children)
    entries = json.loads(plain.manifest.body)["manifests"]
    attestations = {platform: image(NOWHERE, labels={"of": platform}) for platform in children}
    for platform, made in attestations.items():
        about = {
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": children[platform].digest,
        }
        found = made.manifest.descriptor
        entries.append({
            "mediaType": found.media_type, "digest": found.digest, "size": found.size, "annotations": about,
            "platform": as_json(NOWHERE),
        })  # fmt: skip
    return index_of(entries, [*children.values(), *attestations.values()]), attestations


def index_of(entries: list[dict[str, Any]], children: list[images.Image], **fields: Any) -> images.Image:
    """Returns an index with these entries; `fields` are added to the document."""
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, **fields}
    body = json.dumps(document, indent=2).encode()
    return images.Image(Manifest(OCI_INDEX, digest_of(body), body), children=tuple(children))


def changed(made: images.Image, **fields: Any) -> images.Image:
    """Returns the image with other fields in its manifest."""
    body = json.dumps({**json.loads(made.manifest.body), **fields}).encode()
    manifest = Manifest(made.manifest.media_type, digest_of(body), body)
    return images.Image(manifest, made.blobs, made.blob_descriptors, made.children)


def as_json(platform: str) -> dict[str, str]:
    """Returns `os/architecture/variant` as the fields of a platform."""
    return dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
