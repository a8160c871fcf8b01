"""What the built-in registry takes for a manifest, and what it reads there. Pure; `ValueError` says what is wrong."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from schemas.names import Digest, MediaType

_MOST_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class Accepted:
    """A manifest's own words about itself; `parts` are the digests that must be there before it."""

    media_type: MediaType
    parts: tuple[Digest, ...]
    subject: Digest | None
    artifact_type: str
    annotations: dict[str, Any]

    def descriptor(self, digest: Digest, size: int) -> dict[str, object]:
        """As the referrers of its subject list it."""
        found: dict[str, object] = {"mediaType": self.media_type, "digest": digest, "size": size}
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        return found | ({"annotations": self.annotations} if self.annotations else {})


def accept(body: bytes, content_type: str | None) -> Accepted:
    """Read `body`, sent as `content_type`: an image manifest, an index, or anything built like one of them."""
    document = orjson.loads(body)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - one error for every wrong manifest
    if "manifests" in document and ("layers" in document or "config" in document):
        raise ValueError("both an index and an image manifest")
    try:
        return _read(document, content_type)
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _read(document: dict[str, Any], content_type: str | None) -> Accepted:
    config = document.get("config") or {}
    subject = document.get("subject")
    return Accepted(
        media_type=_media_type(document.get("mediaType"), content_type),
        parts=tuple(dict.fromkeys(_parts(document))),
        subject=Digest(subject["digest"]) if subject else None,
        artifact_type=str(document.get("artifactType") or config.get("mediaType") or ""),
        annotations=dict(document.get("annotations") or {}),
    )


def _media_type(said: str | None, content_type: str | None) -> MediaType:
    if said and content_type and said != content_type:
        raise ValueError(f"sent as {content_type!r} but says it is {said!r}")
    if not (said or content_type):
        raise ValueError("neither Content-Type nor mediaType says what it is")
    return MediaType(said or content_type or "")


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
    return (Digest(part["digest"]) for part in found if not _lies_elsewhere(part))


def _lies_elsewhere(part: dict[str, Any]) -> bool:
    """A layer that must not be redistributed is fetched from where its URLs say."""
    media_type = str(part.get("mediaType", ""))
    return "nondistributable" in media_type or ".foreign." in media_type
