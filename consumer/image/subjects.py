"""Which manifests are about others: asked of each untagged push, so what was read once is remembered."""

from collections import OrderedDict

from mesh.registry.port import Registry
from mesh.registry.referrers import read_subject
from schemas.names import Digest, Repository

_MOST_REMEMBERED = 10_000  # a few MiB; a forgotten one is read again


class Subjects:
    """Shared by all tasks of an agent: one push asks for as many tasks as rules want it."""

    def __init__(self) -> None:
        self._seen: OrderedDict[Digest, Digest | None] = OrderedDict()

    async def of(self, source: Registry, repository: Repository, digest: Digest) -> Digest | None:
        """What the manifest is about, or None when about nothing. `NotFound` when the source does not have it."""
        if digest in self._seen:
            return self._seen[digest]
        subject = read_subject(await source.read_manifest(repository, digest))
        self._seen[digest] = subject
        while len(self._seen) > _MOST_REMEMBERED:
            self._seen.popitem(last=False)
        return subject
