"""Parses an image's config and annotations. Pure; a label with an invalid value is ignored."""

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

MAX_CONFIG = 4 * 1024 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Config:
    """The parts of an image's config that filters read (image-spec, config.md)."""

    labels: Mapping[str, str]
    platform: Platform | None


def config_of(manifest: Manifest) -> Descriptor:
    """Returns the config's descriptor of a valid image manifest.

    Raises:
        ContentRefused: The config is over 4 MiB.
    """
    config = orjson.loads(manifest.body)["config"]
    if config["size"] > MAX_CONFIG:
        message = (
            f"the config of {manifest.digest} has {config['size']} bytes; a filter reads at most {MAX_CONFIG}"
        )
        raise ContentRefused(message, side=Side.SOURCE)
    return Descriptor(MediaType(config["mediaType"]), Digest(config["digest"]), config["size"])


def read_config(body: bytes) -> Config:
    """Parses an image's config.

    Raises:
        ContentRefused: It is not an image's config.
    """
    try:
        document = orjson.loads(body)
        return Config(_strings((document.get("config") or {}).get("Labels")), platform_of(document))
    except (ValueError, AttributeError) as error:
        raise ContentRefused("an image's config is not valid JSON of its type", side=Side.SOURCE) from error


def annotations_of(manifest: Manifest) -> Mapping[str, str]:
    """Returns the annotations of a valid image manifest or index."""
    return _strings(orjson.loads(manifest.body).get("annotations"))


def _strings(values: Any) -> dict[str, str]:
    if not isinstance(values, dict):
        return {}
    return {key: value for key, value in values.items() if isinstance(value, str)}
