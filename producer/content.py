"""Checks that a registry has everything below a manifest: its children, and the bytes of its blobs."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from cachetools import LRUCache

from mesh.errors import ContentMismatch, ContentRefused, NotFound, RegistryError
from mesh.registry.manifests import read_parts
from mesh.registry.port import Descriptor, Registry
from schemas.completions import Side
from schemas.names import Digest, Repository

T = TypeVar("T")

_KNOWN_BLOBS = 200_000  # most images of a repository share layers, each of which is read once
_DEEPEST = 4
_MOST_MANIFESTS = 1000


@dataclass(slots=True)
class ContentCheck:
    """Looks below manifests of one registry, as one side of a comparison.

    `ask` repeats a request as the comparison's retry policy says.
    """

    registry: Registry
    ask: Callable[[Callable[[], Awaitable[str | None]]], Awaitable[str | None]]
    _complete: LRUCache[tuple[Repository, Digest], bool] = field(
        default_factory=lambda: LRUCache(maxsize=_KNOWN_BLOBS)
    )

    async def first_missing(self, repository: Repository, digest: Digest) -> str | None:
        """Returns a message about the first thing below the manifest that is missing, or None when all is there.

        Raises:
            RegistryError: The registry could not be asked.
        """
        level, seen = [digest], {digest}
        for _ in range(_DEEPEST + 1):
            following: list[Digest] = []
            for one in level:
                async for child in self._children(repository, one):
                    if isinstance(child, str):
                        return child
                    if child not in seen:
                        seen.add(child)
                        following.append(child)
            if not following:
                return None
            level = following
        raise ContentRefused(f"{digest} is nested deeper than {_DEEPEST}", side=Side.DESTINATION)

    async def _children(self, repository: Repository, digest: Digest) -> AsyncIterator[Digest | str]:
        """Yields the children of a manifest, or what is missing of it."""
        if (repository, digest) in self._complete:
            return
        try:
            manifest = await self.registry.read_manifest(repository, digest)
        except (NotFound, ContentMismatch) as error:
            yield f"manifest {digest}: {error}"
            return
        parts = read_parts(manifest, Side.DESTINATION)
        if len(parts.children) > _MOST_MANIFESTS:
            raise ContentRefused(
                f"{digest} names more than {_MOST_MANIFESTS} manifests", side=Side.DESTINATION
            )
        for blob in parts.blobs:
            if (problem := await self._blob_problem(repository, blob)) is not None:
                yield problem
                return
        for child in parts.children:
            yield child.digest
        if not parts.children:
            self._complete[repository, digest] = True

    async def _blob_problem(self, repository: Repository, blob: Descriptor) -> str | None:
        if (repository, blob.digest) in self._complete:
            return None
        problem = await self.ask(lambda: self._look_at_blob(repository, blob))
        if problem is None:
            self._complete[repository, blob.digest] = True
        return problem

    async def _look_at_blob(self, repository: Repository, blob: Descriptor) -> str | None:
        """Asks for the size, then reads the last byte: a registry may know a blob whose bytes its storage has lost."""
        size = await self.registry.blob_size(repository, blob.digest)
        if size is None:
            return f"blob {blob.digest} is missing"
        if size != blob.size:
            return f"blob {blob.digest} has {size} bytes instead of {blob.size}"
        if blob.size == 0:
            return None
        try:
            async with self.registry.read_blob(repository, blob, offset=blob.size - 1) as chunks:
                async for _ in chunks:
                    pass
        except RegistryError as error:
            await self.registry.ping()  # raises when the registry is to blame, and not the blob
            return f"blob {blob.digest} cannot be read: {error}"
        return None
