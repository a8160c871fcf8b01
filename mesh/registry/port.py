"""A registry as the steps of a copy see it: one side (source or destination) of a task.

All methods raise `mesh.errors.RegistryError` and nothing else. Bodies are streamed: no method holds a blob.
"""

import hashlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from yarl import URL

from schemas.completions import Side
from schemas.names import Digest, MediaType, PlaceName, Reference, Repository, Tag

MAX_MANIFEST = 4 * 1024 * 1024  # what the specification asks registries to take


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest says of a part of it. `size` is in bytes."""

    media_type: MediaType
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest's bytes as they are, never written again from a model; `digest` is of these bytes."""

    media_type: MediaType
    digest: Digest
    body: bytes

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, self.digest, len(self.body))


@dataclass(frozen=True, slots=True)
class Referrer:
    """What a list of referrers says of one of them."""

    descriptor: Descriptor
    artifact_type: str | None


@dataclass(frozen=True, slots=True)
class Upload:
    """Begun at a registry, and to be written or cancelled. `begun` is seconds on the client's clock."""

    session: URL = field(repr=False)  # may hold the upload's state
    begun: float


def digest_of(body: bytes, algorithm: str = "sha256") -> Digest:
    return Digest(f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}")


class Chain(NamedTuple):
    """Where content was first pushed, and how many rules carried it here."""

    origin: PlaceName
    hops: int


class Registry(Protocol):
    async def ping(self) -> None:
        """GET /v2/: raises what a request would meet now; a proxy without its registry is none."""
        ...

    async def resolve(self, repository: Repository, reference: Reference) -> Descriptor | None:
        """HEAD: what `reference` names now, or None when it is not there."""
        ...

    async def read_manifest(self, repository: Repository, reference: Reference) -> Manifest:
        """GET, verified: by digest the bytes match it, by tag they match the registry's own header.

        `NotFound`, `ContentMismatch`, `ContentRefused` (over 4 MiB).
        """
        ...

    async def write_manifest(
        self, repository: Repository, reference: Reference, manifest: Manifest
    ) -> Digest | None:
        """PUT the bytes as they are. `MissingParts` when the registry lacks what the manifest names.

        Gives the manifest's subject when the registry lists the manifest among that one's referrers; None when it has
        no subject, or the registry leaves the list to its clients.
        """
        ...

    async def delete_manifest(self, repository: Repository, reference: Reference) -> None:
        """DELETE: of a tag that alone, by digest the manifest with all its tags.

        `NotFound`; `Denied` or `Rejected` when the registry does not delete, or no tags alone.
        """
        ...

    async def referrers(
        self, repository: Repository, subject: Digest, *, has_no_tag: bool = False
    ) -> list[Referrer]:
        """What says that it is about `subject`: by the referrers API, else by the index under the fallback tag.

        `has_no_tag`: a list of all tags has shown that there is no such tag. Then it is not asked for, and a registry
        that was found to have no API a minute ago or less is not asked at all.
        """
        ...

    async def blob_size(self, repository: Repository, digest: Digest) -> int | None:
        """HEAD: the blob's size in bytes, or None when it is not in this repository."""
        ...

    def read_blob(
        self, repository: Repository, blob: Descriptor, *, offset: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """GET as a verified stream: raises `ContentMismatch` instead of the last chunk when size or digest is wrong.

        With an `offset` only what follows it, by its size alone: who joins it to what came from elsewhere verifies the
        whole. A connection that breaks is taken up again by Range, a bounded number of times.
        """
        ...

    async def mount_blob(self, repository: Repository, digest: Digest, from_repository: Repository) -> bool:
        """Take the blob over from another repository of the same registry; False when it would not."""
        ...

    async def begin_upload(self, repository: Repository, digest: Digest) -> Upload | None:
        """Begin to upload a blob, or None when it is there: one request where the registry mounts blobs, else two."""
        ...

    async def cancel_upload(self, repository: Repository, upload: Upload) -> None:
        """Best effort, and soon over: a registry purges what is left open. Raises nothing."""
        ...

    async def write_blob(
        self,
        repository: Repository,
        blob: Descriptor,
        chunks: AsyncIterator[bytes],
        upload: Upload | None = None,
    ) -> None:
        """Upload in one streamed PUT. When `chunks` raises, nothing is committed and its error passes through.

        An `upload` that was begun is gone afterwards, whatever happens; one that has waited for long is begun anew.
        """
        ...

    def tags(self, repository: Repository) -> AsyncIterator[Tag]:
        """All tags, page by page; `NotFound` when the repository is not there, `UnreadableNames` after the last."""
        ...

    def repositories(self) -> AsyncIterator[Repository]:
        """All that the registry lists to us, page by page; `UnreadableNames` after the last.

        Many refuse: `Denied`, `NotFound` or `Rejected`.
        """
        ...


class Endpoint(Protocol):
    """A place's registry with its credentials and connections, shared by all who talk to it."""

    def registry(self, side: Side, chain: "Chain | None" = None) -> Registry:
        """The registry as one side of a task: its errors say so. What is pushed says that it came along `chain`."""
        ...

    async def ping(self) -> None:
        """Raises the `RegistryError` that a request would meet now: unreachable, or credentials refused."""
        ...

    async def close(self) -> None: ...
