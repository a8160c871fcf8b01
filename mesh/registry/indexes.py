"""What an index says of its children, and an index of fewer of them. Pure, and strict with foreign bytes."""

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

ORIGINAL = "io.regmesh.original.digest"  # annotation of a rebuilt index: what it was made of
_ABOUT = "vnd.docker.reference.digest"  # annotation by which BuildKit's attestations name their image


@dataclass(frozen=True, slots=True)
class Child:
    """What the index says of one; an attestation is about another child and runs on nothing."""

    digest: Digest
    is_index: bool
    platform: Platform | None
    about: Digest | None


def children(index: Manifest) -> tuple[Child, ...]:
    """Of anything else than an index none; `ContentRefused` when it is not what its type says."""
    if index.media_type not in INDEX_TYPES:
        return ()
    try:
        return tuple(_child(entry) for entry in orjson.loads(index.body).get("manifests") or [])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ContentRefused(
            f"index {index.digest} cannot be read: {type(error).__name__}: {error}", side=Side.SOURCE
        ) from error


def rebuilt(index: Manifest, kept: Mapping[Digest, Manifest]) -> Manifest:
    """An index of the children in `kept` alone, each as it is now; the same bytes whenever it is made again.

    `index` itself when that leaves it as it is.
    """
    document = orjson.loads(index.body)
    entries = [entry for entry in document["manifests"] if Digest(entry["digest"]) in kept]
    if len(entries) == len(document["manifests"]) and all(
        kept[child.digest].digest == child.digest for child in children(index)
    ):
        return index
    document["manifests"] = [_as_now(entry, kept[Digest(entry["digest"])]) for entry in entries]
    document["annotations"] = {**(document.get("annotations") or {}), ORIGINAL: index.digest}
    body = orjson.dumps(document)
    return Manifest(index.media_type, digest_of(body, index.digest.algorithm), body)


def platform_of(said: Mapping[str, Any]) -> Platform | None:
    """The platform that an index's entry or an image's config names; None when it names none that there is."""
    parts = [said.get("os"), said.get("architecture"), said.get("variant")]
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


def _as_now(entry: dict[str, Any], manifest: Manifest) -> dict[str, Any]:
    return {**entry, "digest": manifest.digest, "size": len(manifest.body)}
