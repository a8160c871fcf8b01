"""What an image says of itself in its config and annotations. Pure, and forgiving: a wrong label is no label."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from mesh.errors import ContentRefused
from mesh.registry.indexes import platform_of
from mesh.registry.port import Descriptor, Manifest
from schemas.completions import Side
from schemas.names import Digest, MediaType
from schemas.platforms import Platform

MAX_CONFIG = 4 * 1024 * 1024  # bytes that are read of one


@dataclass(frozen=True, slots=True)
class Config:
    labels: Mapping[str, str]
    platform: Platform | None


def config_of(manifest: Manifest) -> Descriptor:
    """Where the config of an image manifest lies, one that was read as such; `ContentRefused` when it is too large."""
    said = orjson.loads(manifest.body)["config"]
    if said["size"] > MAX_CONFIG:
        message = (
            f"the config of {manifest.digest} has {said['size']} bytes; a filter reads {MAX_CONFIG} at most"
        )
        raise ContentRefused(message, side=Side.SOURCE)
    return Descriptor(MediaType(said["mediaType"]), Digest(said["digest"]), said["size"])


def read_config(body: bytes) -> Config:
    """`ContentRefused` when it is not a config of an image."""
    try:
        document = orjson.loads(body)
        return Config(_texts((document.get("config") or {}).get("Labels")), platform_of(document))
    except (ValueError, AttributeError) as error:
        raise ContentRefused(
            "an image's config is not the JSON that its type says", side=Side.SOURCE
        ) from error


def annotations_of(manifest: Manifest) -> Mapping[str, str]:
    """Those of an image manifest or an index that was read as such."""
    return _texts(orjson.loads(manifest.body).get("annotations"))


def _texts(found: Any) -> dict[str, str]:
    return (
        {key: text for key, text in found.items() if isinstance(text, str)} if isinstance(found, dict) else {}
    )
