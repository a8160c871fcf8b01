"""What to copy, and in which order: children before what names them, each thing once. Pure."""

from dataclasses import dataclass

from mesh.registry.manifests import Parts
from mesh.registry.port import Descriptor, Manifest
from schemas.names import Digest


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest with what is wanted of all below it. Manifests are ordered children first, the root last."""

    root: Manifest
    manifests: tuple[tuple[Manifest, Parts], ...]
    rebuilt_from: Digest | None = None  # what the source holds, where the root is a rebuilt index

    @property
    def digest(self) -> Digest:
        """Returns the root's digest."""
        return self.root.digest

    @property
    def sparse(self) -> frozenset[Digest]:
        """Returns the indexes that name children which are not copied."""
        copied = {manifest.digest for manifest, _ in self.manifests}
        return frozenset(
            manifest.digest
            for manifest, parts in self.manifests
            if any(child.digest not in copied for child in parts.children)
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What to copy, in order: every blob before the manifests, the root manifest last."""

    blobs: tuple[Descriptor, ...]
    manifests: tuple[Manifest, ...]
    sparse: frozenset[Digest] = frozenset()  # indexes that name children which are not copied


def make_plan(image: Image) -> Plan:
    """Returns the plan of an image: each of its blobs and manifests once."""
    blobs = {blob.digest: blob for _, parts in image.manifests for blob in parts.blobs}
    manifests = {manifest.digest: manifest for manifest, _ in image.manifests}
    return Plan(tuple(blobs.values()), tuple(manifests.values()), image.sparse)
