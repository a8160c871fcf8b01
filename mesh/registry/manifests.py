"""Parses manifests: their children, their blobs and their kind of resource. Pure, and strict with untrusted bytes."""

from dataclasses import dataclass
from typing import Any

import orjson

from mesh.errors import ContentRefused
from mesh.registry.port import Descriptor, Manifest
from schemas.completions import Side
from schemas.names import Digest, MediaType
from schemas.rules import Resource

OCI_MANIFEST = MediaType("application/vnd.oci.image.manifest.v1+json")
OCI_INDEX = MediaType("application/vnd.oci.image.index.v1+json")
DOCKER_MANIFEST = MediaType("application/vnd.docker.distribution.manifest.v2+json")
DOCKER_LIST = MediaType("application/vnd.docker.distribution.manifest.list.v2+json")
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})

_IMAGE_CONFIGS = frozenset(
    {"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
)
_CHART_CONFIG = "application/vnd.cncf.helm.config.v1+json"
_MAX_DESCRIPTORS = 10_000


@dataclass(frozen=True, slots=True)
class Parts:
    """What one manifest names directly: an index has only `children`, an image manifest only `blobs`."""

    children: tuple[Descriptor, ...]
    blobs: tuple[Descriptor, ...]
    resource: Resource | None  # None for a plain index, whose children decide


def read_parts(manifest: Manifest, side: Side) -> Parts:
    """Parses the parts of `manifest`.

    Raises:
        ContentRefused: Its type is unknown, or its content does not match its type.
    """
    is_index = manifest.media_type in INDEX_TYPES
    if not is_index and manifest.media_type not in MANIFEST_TYPES:
        raise ContentRefused(
            f"manifest {manifest.digest} has the unknown type {manifest.media_type}", side=side
        )
    try:
        document = orjson.loads(manifest.body)
        if is_index:
            return _of_index(document)
        return _of_manifest(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ContentRefused(
            f"manifest {manifest.digest} is not a {manifest.media_type}: {what}", side=side
        ) from error


def _of_index(document: dict[str, Any]) -> Parts:
    children = _descriptors(document.get("manifests") or [])
    return Parts(children, (), "artifact" if document.get("artifactType") else None)


def _of_manifest(document: dict[str, Any]) -> Parts:
    config = document["config"]
    layers = [layer for layer in document.get("layers") or [] if not _is_foreign(layer)]
    return Parts((), _descriptors([config, *layers]), _resource(str(config["mediaType"])))


def _descriptors(found: list[dict[str, Any]]) -> tuple[Descriptor, ...]:
    if len(found) > _MAX_DESCRIPTORS:
        raise ValueError(f"names {len(found)} parts; at most {_MAX_DESCRIPTORS} are copied")
    unique: dict[Digest, Descriptor] = {}
    for part in found:
        size = part["size"]
        if not isinstance(size, int) or size < 0:
            raise ValueError("a part without a size")
        digest = Digest(part["digest"])
        unique.setdefault(digest, Descriptor(MediaType(part["mediaType"]), digest, size))
    return tuple(unique.values())


def _is_foreign(layer: dict[str, Any]) -> bool:
    """Returns whether a layer must not be redistributed; clients fetch it from its URLs (image-spec, layer.md)."""
    media_type = str(layer.get("mediaType", ""))
    return bool(layer.get("urls")) and ("nondistributable" in media_type or "foreign" in media_type)


def _resource(config_type: str) -> Resource:
    if config_type in _IMAGE_CONFIGS:
        return "image"
    return "chart" if config_type == _CHART_CONFIG else "artifact"
