"""Referrers of a manifest (signatures, SBOMs, attestations) and the names they are found by. Pure.

There are three schemes: a manifest with a `subject`, listed by the referrers API; the same manifest listed in an index
under the fallback tag `sha256-<hex>`, where a registry lacks that API; and cosign's tags `sha256-<hex>.sig`, `.att` and
`.sbom`. Source: OCI Distribution specification, "Listing Referrers" and "Referrers Tag Schema".
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from mesh.errors import ContentRefused, Rejected
from mesh.registry.manifests import OCI_INDEX
from mesh.registry.port import MAX_MANIFEST, Descriptor, Manifest, Referrer, digest_of
from schemas.completions import Side
from schemas.names import Digest, MediaType, Tag

_COSIGN_SUFFIXES = ("sig", "att", "sbom")
_CREATED = "org.opencontainers.image.created"
_EARLIEST = datetime.min.replace(tzinfo=UTC)
_LONGEST_HEX = 64  # characters of a digest in a tag; the specification truncates longer ones
_BY_TAG = re.compile(rf"sha256-([0-9a-f]{{64}})(\.(?:{'|'.join(_COSIGN_SUFFIXES)}))?", re.ASCII)


def fallback_tag(subject: Digest) -> Tag:
    """Returns the tag that lists the referrers of `subject` at a registry without the referrers API."""
    algorithm, _, encoded = subject.partition(":")
    return Tag(f"{algorithm}-{encoded[:_LONGEST_HEX]}")


def cosign_tags(subject: Digest) -> tuple[Tag, ...]:
    """Returns the tags of cosign's scheme, which exist for SHA-256 digests only."""
    if subject.algorithm != "sha256":
        return ()
    return tuple(Tag(f"{fallback_tag(subject)}.{suffix}") for suffix in _COSIGN_SUFFIXES)


def subject_named(tag: str) -> Digest | None:
    """Returns the subject that a tag of either scheme names, or None for any other tag."""
    found = _BY_TAG.fullmatch(tag)
    return Digest(f"sha256:{found[1]}") if found else None


def is_fallback(tag: str) -> bool:
    """Returns whether the tag is a fallback list of referrers, which is merged and never copied as it is."""
    found = _BY_TAG.fullmatch(tag)
    return found is not None and found[2] is None


def read_subject(manifest: Manifest) -> Digest | None:
    """Returns the digest of the manifest's subject, or None without one.

    Raises:
        ContentRefused: The subject is invalid.
    """
    try:
        subject = orjson.loads(manifest.body).get("subject")
        return Digest(subject["digest"]) if subject else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ContentRefused(
            f"manifest {manifest.digest} has an invalid subject", side=Side.SOURCE
        ) from error


def read_index(body: bytes, side: Side) -> list[Referrer]:
    """Parses a list of referrers and returns its entries, each digest once.

    Raises:
        Rejected: It is not a list of referrers.
    """
    try:
        entries = [_referrer(entry) for entry in orjson.loads(body).get("manifests") or []]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Rejected(f"a list of referrers is invalid: {error}", side=side) from error
    return list({entry.descriptor.digest: entry for entry in entries}.values())


def newest_first(listed: Sequence[Referrer]) -> list[Referrer]:
    """Returns the entries by the time that they were created; those without one last, the end of the list first.

    Whoever maintains a list under a fallback tag adds to its end.
    """
    last_first = listed[::-1]
    return sorted(last_first, key=lambda entry: entry.created or _EARLIEST, reverse=True)


def merged(index: Manifest | None, referrers: Iterable[Manifest]) -> Manifest | None:
    """Returns the index with `referrers` added, or None when it lists all of them. Other content stays unchanged.

    Raises:
        ContentRefused: It is not an index, or the result is over 4 MiB.
    """
    document = _document(index)
    entries = document.get("manifests") or []
    listed = {entry.get("digest") for entry in entries if isinstance(entry, dict)}
    added = {it.digest: _entry(it) for it in referrers if it.digest not in listed}
    if not added:
        return None
    body = orjson.dumps({**document, "manifests": [*entries, *added.values()]})
    if len(body) > MAX_MANIFEST:
        raise ContentRefused(
            f"a list of referrers over {MAX_MANIFEST} bytes cannot be written", side=Side.DESTINATION
        )
    return Manifest(OCI_INDEX, digest_of(body), body)


def _document(index: Manifest | None) -> dict[str, Any]:
    if index is None:
        return {"schemaVersion": 2, "mediaType": OCI_INDEX}
    if index.media_type != OCI_INDEX:
        raise ContentRefused(
            f"the fallback tag of a list of referrers names a {index.media_type}", side=Side.DESTINATION
        )
    document: dict[str, Any] = orjson.loads(index.body)  # the client has verified that it is an object
    return document


def _referrer(entry: dict[str, Any]) -> Referrer:
    described = Descriptor(MediaType(entry["mediaType"]), Digest(entry["digest"]), int(entry["size"]))
    artifact_type = str(entry["artifactType"]) if entry.get("artifactType") else None
    return Referrer(described, artifact_type, _created(entry.get("annotations")))


def _created(annotations: object) -> datetime | None:
    """Returns when the referrer was created; None when no annotation says so in a form that can be read."""
    try:
        created = datetime.fromisoformat(annotations[_CREATED])  # type: ignore[index]
    except (TypeError, KeyError, ValueError):
        return None
    return created if created.tzinfo is not None else created.replace(tzinfo=UTC)


def _entry(manifest: Manifest) -> dict[str, object]:
    """Describes a referrer as the specification requires: with its artifact type, else the type of its config."""
    document = orjson.loads(manifest.body)
    entry: dict[str, object] = {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": len(manifest.body),
    }
    if kind := document.get("artifactType") or (document.get("config") or {}).get("mediaType"):
        entry["artifactType"] = kind
    return entry | ({"annotations": document["annotations"]} if document.get("annotations") else {})
