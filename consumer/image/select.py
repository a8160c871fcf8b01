"""Decides whether a rule wants what the manifests turned out to be, and how much of it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from consumer.image.plan import Image
from mesh.registry import indexes
from mesh.registry.configs import Config, annotations_of
from mesh.registry.manifests import INDEX_TYPES, Parts, read_parts
from mesh.registry.port import Manifest
from mesh.rules.matching.compiled_rule import CompiledRule
from mesh.rules.matching.patterns import Labels
from schemas.completions import Side
from schemas.names import Digest
from schemas.platforms import Platform
from schemas.rules import Resource

Configs = Mapping[Digest, Config]  # by the manifest's digest


def resource_of(image: Image) -> Resource:
    """Returns what the image is, by the media types in its manifests; an index is what its first typed child is."""
    own = _parts_of_root(image).resource
    if own is not None:
        return own
    found = [parts.resource for _, parts in image.manifests if parts.resource is not None]
    if "image" in found or any(child.platform is not None for child in indexes.children(image.root)):
        return "image"
    return found[0] if found else "artifact"


def left_out(rule: CompiledRule, index: Manifest) -> frozenset[Digest]:
    """Returns the children that need not be read, as the index names another platform for them."""
    if not rule.takes_parts:
        return frozenset()
    found = indexes.children(index)
    out = {
        child.digest
        for child in found
        if not child.is_index and child.platform is not None and not rule.wants_platform(child.platform)
    }
    return frozenset(out | {child.digest for child in found if child.about in out})


def needs_config(rule: CompiledRule, image: Image) -> Sequence[Manifest]:
    """Returns the images whose configs the filters need: all for labels, those without a platform in an index else."""
    if rule.platform is None and not rule.asks_for_labels:
        return ()
    children = {child.digest: child for child in _children(image)}
    images = [manifest for manifest, parts in image.manifests if parts.resource == "image"]
    return [
        manifest
        for manifest in images
        if (child := children.get(manifest.digest)) is None
        or (child.about is None and (rule.asks_for_labels or child.platform is None))
    ]


def narrow(rule: CompiledRule, image: Image, configs: Configs) -> Image:
    """Returns what the rule copies: of an index what runs on its platforms, in its mode; all of anything else."""
    if not rule.takes_parts or rule.platform is None:
        return image
    kept = _kept(rule, image, configs)
    if image.digest not in kept:
        return image  # nothing of it is wanted
    parts = replace(image, manifests=tuple(it for it in image.manifests if it[0].digest in kept))
    return parts if rule.platform.mode == "sparse" else _rebuilt(parts)


def miss(rule: CompiledRule, image: Image, chosen: Image, configs: Configs) -> str | None:
    """Returns which filter does not match, for people, or None. Labels are those of what was chosen."""
    return rule.late_miss(
        resource_of(chosen), _labels(chosen, configs), list(_platforms(image, configs).values())
    )


def _labels(image: Image, configs: Configs) -> list[Labels]:
    annotations = [annotations_of(manifest) for manifest, _ in image.manifests]
    return [*annotations, *(configs[it.digest].labels for it, _ in image.manifests if it.digest in configs)]


def _platforms(image: Image, configs: Configs) -> dict[Digest, Platform | None]:
    """The platform of every image in it, read or not: from an index, else from its config."""
    indexed = {
        child.digest: child.platform for child in _children(image) if not (child.is_index or child.about)
    }
    configured = {digest: config.platform for digest, config in configs.items()}
    return {digest: indexed.get(digest) or configured.get(digest) for digest in {**indexed, **configured}}


def _kept(rule: CompiledRule, image: Image, configs: Configs) -> set[Digest]:
    """What runs on the rule's platforms, the attestations about it, and the indexes above it."""
    kept = {digest for digest, found in _platforms(image, configs).items() if rule.wants_platform(found)}
    for manifest, _ in image.manifests:  # children first
        children = indexes.children(manifest)
        kept |= {child.digest for child in children if child.about in kept}
        if any(child.digest in kept for child in children):
            kept.add(manifest.digest)
    return kept


def _rebuilt(image: Image) -> Image:
    """The same image with indexes that name only what is copied; a rebuilt root keeps the original's digest."""
    now: dict[Digest, Manifest] = {}
    for manifest, _ in image.manifests:  # children first
        now[manifest.digest] = (
            indexes.rebuilt(manifest, now) if manifest.media_type in INDEX_TYPES else manifest
        )
    root = now[image.digest]
    manifests = tuple((it, read_parts(it, Side.SOURCE)) for it in now.values())
    return Image(root, manifests, rebuilt_from=image.digest if root.digest != image.digest else None)


def _children(image: Image) -> list[indexes.Child]:
    return [child for manifest, _ in image.manifests for child in indexes.children(manifest)]


def _parts_of_root(image: Image) -> Parts:
    return image.manifests[-1][1]
