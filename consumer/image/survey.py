"""Asks the source for the digest to copy and reads all manifests below it; asks the destination what it holds.

Registries announce a push before they store the tag (measured: 21 of 200), and events may be late. So the source is
asked, and a tag that does not name the event's digest gets a moment to settle.
"""

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice

from consumer.image.job import Job
from consumer.image.plan import Image
from consumer.settings import ImageLimits
from mesh.concurrency import all_of
from mesh.errors import ContentRefused, NotFound
from mesh.registry.absence import resolve_confirmed
from mesh.registry.manifests import Parts, read_parts
from mesh.registry.port import Descriptor, Manifest
from schemas.completions import Side
from schemas.names import Digest

SETTLE_SECONDS = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5  # seconds between two looks at an unsettled tag
_CONCURRENT_READS = 8
_DEEPEST = 4


async def announced_digest(job: Job) -> Digest | None:
    """Returns the event's digest, or, where it has none, what the source's tag names; None when that is missing."""
    return job.task.digest if job.task.digest is not None else await settled_digest(job, None)


async def settled_digest(job: Job, expected: Digest | None) -> Digest | None:
    """Returns the digest that the source's tag names once it has settled; None when the tag is missing.

    That is `expected` as soon as the tag names it, else whatever it names after 5 s. With nothing expected, it is
    whatever the tag names first. Returns at once when the task is superseded, as the newer task asks for itself.

    Raises:
        RegistryError: The source failed, or its absence is not confirmed.
    """
    deadline = job.clock.monotonic() + SETTLE_SECONDS
    pause = _FIRST_PAUSE
    while True:
        found = await job.source.resolve(job.task.repository, job.task.reference)
        digest = found.digest if found is not None else None
        is_settled = digest is not None and expected in (None, digest)
        if is_settled or job.control.superseded.is_set():
            return digest
        if job.clock.monotonic() >= deadline:
            return digest or await current_digest(job)
        await job.clock.sleep(pause)
        pause = min(_LONGEST_PAUSE, pause * 2)


async def current_digest(job: Job) -> Digest | None:
    """Returns what the source's tag names now; None when the registry itself says that it is missing.

    Raises:
        RegistryError: The source failed, or its absence is not confirmed.
    """
    found = await resolve_confirmed(job.source, job.task.repository, job.task.reference, clock=job.clock)
    return found.digest if found is not None else None


def _nothing(_: Manifest) -> frozenset[Digest]:
    return frozenset()


async def read_image(
    job: Job, digest: Digest, *, leave_out: Callable[[Manifest], AbstractSet[Digest]] = _nothing
) -> Image | None:
    """Returns the manifest and all manifests below it, or None when the source does not have it (yet).

    `leave_out` returns the children of an index that are not read.

    Raises:
        ContentRefused: The image is nested too deep or too large.
    """
    source, repository = job.source, job.task.repository
    try:
        root = await source.read_manifest(repository, digest)
    except NotFound:
        return None
    walk = _Walk(root, leave_out, job.services.limits)
    while wanted := walk.next_level():
        for batch in _batches(wanted):
            found = await all_of(source.read_manifest(repository, part.digest) for part in batch)
            for manifest in found:
                walk.add(manifest)
    return Image(root, walk.children_first())


async def holds(job: Job, digest: Digest) -> bool:
    """Returns whether the destination's tag names `digest`. As tags are written last, all below it is there then."""
    found = await job.destination.resolve(job.task.destination_repository, job.task.reference)
    return found is not None and found.digest == digest


async def has_content(job: Job, digest: Digest) -> bool:
    """Returns whether the destination has the manifest by digest; a registry takes it only with all below it."""
    return await job.destination.resolve(job.task.destination_repository, digest) is not None


async def has_all(job: Job, image: Image) -> bool:
    """Returns whether the destination has all manifests of an image; the root of a sparse one does not imply that."""
    digests = [manifest.digest for manifest, _ in image.manifests] if image.sparse else [image.digest]
    return all([await has_content(job, digest) for digest in digests])


async def holds_all(job: Job, image: Image) -> bool:
    """Returns whether the destination's tag names the image and what is wanted of it is there."""
    return await holds(job, image.digest) and await has_all(job, image)


class _Walk:
    """Walks from a root down, level by level, each manifest once; refuses what is nested too deep or too large."""

    def __init__(
        self, root: Manifest, leave_out: Callable[[Manifest], AbstractSet[Digest]], limits: ImageLimits
    ) -> None:
        self._leave_out, self._limits = leave_out, limits
        self._found: dict[Digest, tuple[Manifest, Parts]] = {}
        self._depth: dict[Digest, int] = {}
        self._level: list[Digest] = []
        self._deepest = self._bytes = 0
        self.add(root)

    def add(self, manifest: Manifest) -> None:
        """Adds a manifest that was read."""
        self._bytes += len(manifest.body)
        limits = self._limits
        if len(self._found) >= limits.manifests or self._bytes > limits.manifest_bytes:
            limit = f"{limits.manifests} manifests or {limits.manifest_bytes} bytes of them"
            raise ContentRefused(f"an image with more than {limit} is not copied", side=Side.SOURCE)
        self._found[manifest.digest] = (manifest, read_parts(manifest, Side.SOURCE))
        self._depth[manifest.digest] = self._deepest
        self._level.append(manifest.digest)

    def next_level(self) -> list[Descriptor]:
        """Returns the children of the last level that were not read yet; empty at the end."""
        named = {
            child.digest: child for digest in self._level for child in self._wanted(*self._found[digest])
        }
        self._level = []
        self._deepest += 1
        if named and self._deepest > _DEEPEST:
            raise ContentRefused(f"an index nested deeper than {_DEEPEST} is not copied", side=Side.SOURCE)
        for digest in named.keys() & self._found.keys():
            self._depth[digest] = (
                self._deepest
            )  # also named from a lower level: it has to be written before that
            self._level.append(digest)
        return [child for digest, child in named.items() if digest not in self._found]

    def _wanted(self, manifest: Manifest, parts: Parts) -> Iterator[Descriptor]:
        unwanted = self._leave_out(manifest)
        return (child for child in parts.children if child.digest not in unwanted)

    def children_first(self) -> tuple[tuple[Manifest, Parts], ...]:
        """Returns what was read, children before what names them."""
        order = sorted(self._found, key=lambda digest: -self._depth[digest])
        return tuple(self._found[digest] for digest in order)


def _batches(wanted: Sequence[Descriptor]) -> Iterator[Sequence[Descriptor]]:
    rest = iter(wanted)
    while batch := list(islice(rest, _CONCURRENT_READS)):
        yield batch
