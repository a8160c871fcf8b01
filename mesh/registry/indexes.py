"""Parses an index's children, and rebuilds an index with fewer children. Pure, and strict with untrusted bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from mesh.errors import ContentRefused
from mesh.registry.manifests import INDEX_TYPES
from mesh.registry.port import Manifest, digest_of
from schemas.completions import Side
from schemas.names import Digest
from schemas.platforms import Platform

ORIGINAL = "io.regmesh.original.digest"  # annotation of a rebuilt index: the digest of the original
_ABOUT = "vnd.docker.reference.digest"  # annotation of a BuildKit attestation: the digest of its image


@dataclass(frozen=True, slots=True)
class Child:
    """One entry of an index. An attestation is `about` another child and has no platform."""

    digest: Digest
    is_index: bool
    platform: Platform | None
    about: Digest | None


def children(index: Manifest) -> tuple[Child, ...]:
    """Returns the children of an index, and none for any other manifest.

    Raises:
        ContentRefused: The index is invalid.
    """
    if index.media_type not in INDEX_TYPES:
        return ()
    try:
        return tuple(_child(entry) for entry in orjson.loads(index.body).get("manifests") or [])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ContentRefused(
            f"index {index.digest} is invalid: {type(error).__name__}: {error}", side=Side.SOURCE
        ) from error


def rebuilt(index: Manifest, kept: Mapping[Digest, Manifest]) -> Manifest:
    """Returns an index of the children in `kept` only, with deterministic bytes, or `index` when nothing changes.

    Args:
        kept: The new manifest of each child to keep, by the digest that `index` names.
    """
    document = orjson.loads(index.body)
    entries = [entry for entry in document["manifests"] if Digest(entry["digest"]) in kept]
    if len(entries) == len(document["manifests"]) and all(
        kept[child.digest].digest == child.digest for child in children(index)
    ):
        return index
    document["manifests"] = [_updated(entry, kept[Digest(entry["digest"])]) for entry in entries]
    document["annotations"] = {**(document.get("annotations") or {}), ORIGINAL: index.digest}
    body = orjson.dumps(document)
    return Manifest(index.media_type, digest_of(body, index.digest.algorithm), body)


def platform_of(source: Mapping[str, Any]) -> Platform | None:
    """Returns the platform of an index's `platform` object or an image's config, or None without a valid one."""
    parts = [source.get("os"), source.get("architecture"), source.get("variant")]
    if "unknown" in parts[:2]:
        return None
    try:
        return Platform("/".join(str(part) for part in parts if part))
    except ValueError:
        return None


def _child(entry: dict[str, Any]) -> Child:
    about = (entry.get("annotations") or {}).get(_ABOUT)
    return Child(
        digest=Digest(entry["digest"]),
        is_index=entry["mediaType"] in INDEX_TYPES,
        platform=platform_of(entry.get("platform") or {}),
        about=Digest(about) if about else None,
    )


def _updated(entry: dict[str, Any], manifest: Manifest) -> dict[str, Any]:
    return {**entry, "digest": manifest.digest, "size": len(manifest.body)}
