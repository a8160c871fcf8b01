"""Artifacts that are attached to images, built as `oras attach` and `cosign` do, and pushed as clients do."""

import json
from datetime import UTC, datetime, timedelta

from mesh.errors import NotFound
from mesh.registry.manifests import OCI_INDEX, OCI_MANIFEST
from mesh.registry.port import Descriptor, Manifest, Registry, digest_of
from schemas.names import Digest, MediaType, Repository, Tag
from tests.support import images

SBOM, SIGNATURE = "application/spdx+json", "application/vnd.dev.sigstore.bundle.v0.3+json"
_EMPTY = "application/vnd.oci.empty.v1+json"


def attachment(subject: Manifest, kind: str, body: bytes, *, number: int = 0) -> images.Image:
    """Returns a manifest with the subject `subject`, an empty config and one blob; later ones have larger numbers."""
    parts = [
        Descriptor(MediaType(_EMPTY), digest_of(b"{}"), 2),
        Descriptor(MediaType(kind), digest_of(body), len(body)),
    ]
    created = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    config, layer = (_as_json(part) for part in parts)
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": config,
        "layers": [layer],
        "subject": _as_json(subject.descriptor),
        "annotations": {"org.opencontainers.image.created": created.isoformat().replace("+00:00", "Z")},
    }
    written = json.dumps(document, indent=1).encode()
    manifest = Manifest(OCI_MANIFEST, digest_of(written), written)
    return images.Image(manifest, {parts[0].digest: b"{}", parts[1].digest: body}, tuple(parts))


def cosign_tag(subject: Digest, suffix: str) -> str:
    """Returns the tag by which cosign attaches to a digest: `sha256-<hex>.<suffix>`."""
    return f"{subject.replace(':', '-')}.{suffix}"


async def push(
    registry: Registry, repository: Repository, subject: Manifest, pushed: images.Image
) -> Digest | None:
    """Pushes by digest, and updates the fallback referrers tag of a registry without the referrers API.

    Returns:
        The digest of the fallback index; None when the registry has the API.
    """
    await images.push(registry, repository, pushed.digest, pushed)
    if await registry.write_manifest(repository, pushed.digest, pushed.manifest) is not None:
        return None
    tag = Tag(subject.digest.replace(":", "-"))
    try:
        listed = json.loads((await registry.read_manifest(repository, tag)).body)["manifests"]
    except NotFound:
        listed = []
    index = index_of([*listed, entry(pushed.manifest)])
    await registry.write_manifest(repository, tag, index)
    return index.digest


def entry(manifest: Manifest) -> dict[str, object]:
    """Returns the manifest's entry in a list of referrers (OCI distribution-spec, "Listing Referrers")."""
    document = json.loads(manifest.body)
    return {
        **_as_json(manifest.descriptor),
        "artifactType": document["artifactType"],
        "annotations": document["annotations"],
    }


def index_of(entries: list[dict[str, object]]) -> Manifest:
    """Returns an OCI index with these entries."""
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    return Manifest(OCI_INDEX, digest_of(body), body)


def _as_json(part: Descriptor) -> dict[str, object]:
    return {"mediaType": part.media_type, "digest": part.digest, "size": part.size}
