"""What is attached to a manifest (signatures, SBOMs, attestations), and by which names it is found. Pure.

Three ways there are: a manifest whose `subject` is the other one, listed by the registry's referrers API; the same
manifest listed in an index under the tag `sha256-<hex>`, where a registry has no such API; and cosign's own tags
`sha256-<hex>.sig`, `.att` and `.sbom`.
"""

import re
from collections.abc import Iterable
from typing import Any

import orjson

from mesh.errors import ContentRefused, Rejected
from mesh.registry.manifests import OCI_INDEX
from mesh.registry.port import MAX_MANIFEST, Descriptor, Manifest, Referrer, digest_of
from schemas.completions import Side
from schemas.names import Digest, MediaType, Tag

_COSIGN_SUFFIXES = ("sig", "att", "sbom")
_LONGEST_HEX = 64  # of a digest in a tag, by the specification: what is longer is cut
_BY_TAG = re.compile(rf"sha256-([0-9a-f]{{64}})(\.(?:{'|'.join(_COSIGN_SUFFIXES)}))?", re.ASCII)


def fallback_tag(subject: Digest) -> Tag:
    """Under which tag a registry without the referrers API lists the referrers of `subject`."""
    algorithm, _, encoded = subject.partition(":")
    return Tag(f"{algorithm}-{encoded[:_LONGEST_HEX]}")


def cosign_tags(subject: Digest) -> tuple[Tag, ...]:
    """By cosign's scheme; it names by SHA-256 alone, so of another digest there are none."""
    if subject.algorithm != "sha256":
        return ()
    return tuple(Tag(f"{fallback_tag(subject)}.{suffix}") for suffix in _COSIGN_SUFFIXES)


def subject_named(tag: str) -> Digest | None:
    """Whom a tag of either scheme is about; None of any other tag."""
    found = _BY_TAG.fullmatch(tag)
    return Digest(f"sha256:{found[1]}") if found else None


def is_fallback(tag: str) -> bool:
    """True of a tag that is a list: it is merged with what is there, never copied as a value."""
    found = _BY_TAG.fullmatch(tag)
    return found is not None and found[2] is None


def read_subject(manifest: Manifest) -> Digest | None:
    """The digest that a manifest says it is about; `ContentRefused` when it says so in no readable way."""
    try:
        subject = orjson.loads(manifest.body).get("subject")
        return Digest(subject["digest"]) if subject else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ContentRefused(
            f"manifest {manifest.digest} has a subject that is none", side=Side.SOURCE
        ) from error


def read_index(body: bytes, side: Side) -> list[Referrer]:
    """The entries of a list of referrers, each digest once; `Rejected` when it is no such list."""
    try:
        entries = [_referrer(entry) for entry in orjson.loads(body).get("manifests") or []]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Rejected(f"a list of referrers that is none: {error}", side=side) from error
    return list({entry.descriptor.digest: entry for entry in entries}.values())


def merged(index: Manifest | None, referrers: Iterable[Manifest]) -> Manifest | None:
    """The index with `referrers` in it too, entries united by digest; None when all of them are in it.

    What else stands in the index stays as it is. `ContentRefused` when it is no index, or would be over 4 MiB.
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
            f"a list of referrers over {MAX_MANIFEST} bytes is not written", side=Side.DESTINATION
        )
    return Manifest(OCI_INDEX, digest_of(body), body)


def _document(index: Manifest | None) -> dict[str, Any]:
    if index is None:
        return {"schemaVersion": 2, "mediaType": OCI_INDEX}
    if index.media_type != OCI_INDEX:
        raise ContentRefused(
            f"the tag of a list of referrers names a {index.media_type}", side=Side.DESTINATION
        )
    document: dict[str, Any] = orjson.loads(index.body)  # the client has seen that it is an object
    return document


def _referrer(entry: dict[str, Any]) -> Referrer:
    described = Descriptor(MediaType(entry["mediaType"]), Digest(entry["digest"]), int(entry["size"]))
    return Referrer(described, str(entry["artifactType"]) if entry.get("artifactType") else None)


def _entry(manifest: Manifest) -> dict[str, object]:
    """As the specification wants a referrer described: its type is its artifact type, else that of its config."""
    document = orjson.loads(manifest.body)
    entry: dict[str, object] = {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": len(manifest.body),
    }
    if kind := document.get("artifactType") or (document.get("config") or {}).get("mediaType"):
        entry["artifactType"] = kind
    return entry | ({"annotations": document["annotations"]} if document.get("annotations") else {})
