"""Parses the manifests that the built-in registry accepts. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from schemas.names import Digest, MediaType

_MOST_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class ParsedManifest:
    """The fields that the registry reads of a manifest; `parts` are the digests that must exist before it."""

    media_type: MediaType
    parts: tuple[Digest, ...]
    subject: Digest | None
    artifact_type: str
    annotations: dict[str, Any]

    def descriptor(self, digest: Digest, size: int) -> dict[str, object]:
        """Returns the manifest's entry in the list of its subject's referrers."""
        found: dict[str, object] = {"mediaType": self.media_type, "digest": digest, "size": size}
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        return found | ({"annotations": self.annotations} if self.annotations else {})


def parse_manifest(body: bytes, content_type: str | None) -> ParsedManifest:
    """Parses an image manifest, an index, or anything of the same structure.

    Raises:
        ValueError: It is invalid; the message says why.
    """
    document = orjson.loads(body)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - one error for every wrong manifest
    if "manifests" in document and ("layers" in document or "config" in document):
        raise ValueError("both an index and an image manifest")
    try:
        return _read(document, content_type)
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _read(document: dict[str, Any], content_type: str | None) -> ParsedManifest:
    config = document.get("config") or {}
    subject = document.get("subject")
    return ParsedManifest(
        media_type=_media_type(document.get("mediaType"), content_type),
        parts=tuple(dict.fromkeys(_parts(document))),
        subject=Digest(subject["digest"]) if subject else None,
        artifact_type=str(document.get("artifactType") or config.get("mediaType") or ""),
        annotations=dict(document.get("annotations") or {}),
    )


def _media_type(stated: str | None, content_type: str | None) -> MediaType:
    if stated and content_type and stated != content_type:
        raise ValueError(f"sent as {content_type!r} but its mediaType is {stated!r}")
    if not (stated or content_type):
        raise ValueError("it has neither a Content-Type nor a mediaType")
    return MediaType(stated or content_type or "")


def _parts(document: dict[str, Any]) -> Iterator[Digest]:
    found = [
        *(document.get("layers") or []),
        *(document.get("blobs") or []),
        *(document.get("manifests") or []),
    ]
    if document.get("config"):
        found.append(document["config"])
    if len(found) > _MOST_PARTS:
        raise ValueError(f"names more than {_MOST_PARTS} parts")
    return (Digest(part["digest"]) for part in found if not _is_foreign(part))


def _is_foreign(part: dict[str, Any]) -> bool:
    """Returns whether a layer must not be redistributed; clients fetch it from its URLs."""
    media_type = str(part.get("mediaType", ""))
    return "nondistributable" in media_type or ".foreign." in media_type
