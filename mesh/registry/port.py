"""The registry port: what a copy needs of a registry, as one side (source or destination) of a task.

All methods raise `mesh.errors.RegistryError` and nothing else. Blobs are streamed, never held in memory.
"""

import hashlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from yarl import URL

from schemas.completions import Side
from schemas.names import Digest, MediaType, PlaceName, Reference, Repository, Tag

MAX_MANIFEST = 4 * 1024 * 1024  # bytes; the OCI Distribution specification asks registries to accept as much


@dataclass(frozen=True, slots=True)
class Descriptor:
    """An OCI content descriptor (image-spec, descriptor.md). `size` is in bytes."""

    media_type: MediaType
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as its original bytes; `digest` is the digest of these bytes."""

    media_type: MediaType
    digest: Digest
    body: bytes

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of this manifest."""
        return Descriptor(self.media_type, self.digest, len(self.body))


@dataclass(frozen=True, slots=True)
class Referrer:
    """One entry of a list of referrers."""

    descriptor: Descriptor
    artifact_type: str | None
    created: datetime | None = None  # as its annotation says


@dataclass(frozen=True, slots=True)
class Upload:
    """An open upload session, to be written or cancelled. `started` is in seconds of the client's monotonic clock."""

    session: URL = field(repr=False)  # may contain the upload's state
    started: float


class Chain(NamedTuple):
    """Where content was first pushed, and how many rules have copied it since."""

    origin: PlaceName
    hops: int


def digest_of(body: bytes, algorithm: str = "sha256") -> Digest:
    """Returns the digest of `body`."""
    return Digest(f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}")


class Registry(Protocol):
    """A registry as one side of a task (OCI Distribution 1.1)."""

    async def ping(self) -> None:
        """Sends GET /v2/ and raises the error that any request would meet now, even during a rate-limit pause."""
        ...

    async def resolve(self, repository: Repository, reference: Reference) -> Descriptor | None:
        """Returns what `reference` names now (HEAD), or None when it is missing."""
        ...

    async def read_manifest(self, repository: Repository, reference: Reference) -> Manifest:
        """Reads and verifies a manifest: against the digest asked for, or against the registry's digest header.

        Raises:
            NotFound: The manifest or its repository is missing.
            ContentMismatch: The bytes do not match the digest.
            ContentRefused: The manifest is over 4 MiB, or its type is unclear.
        """
        ...

    async def write_manifest(
        self, repository: Repository, reference: Reference, manifest: Manifest
    ) -> Digest | None:
        """Writes the manifest's bytes unchanged (PUT).

        Returns:
            The manifest's subject when the registry adds the manifest to that subject's referrers (`OCI-Subject`).
            None when it has no subject, or the registry leaves the list to its clients.

        Raises:
            MissingParts: The registry lacks content that the manifest names.
        """
        ...

    async def delete_manifest(self, repository: Repository, reference: Reference) -> None:
        """Deletes a tag alone, or by digest the manifest with all its tags.

        Raises:
            NotFound: The reference is missing.
            Denied: The registry does not permit it.
            Rejected: The registry does not delete, or does not delete tags alone.
        """
        ...

    async def referrers(
        self, repository: Repository, subject: Digest, *, has_no_tag: bool = False
    ) -> list[Referrer]:
        """Lists the referrers of `subject` by the referrers API, else by the index under the fallback tag.

        Args:
            has_no_tag: A list of all tags has shown that there is no fallback tag, so it is not read. A registry
                that was found to lack the referrers API within the last minute is then not asked at all.
        """
        ...

    async def blob_size(self, repository: Repository, digest: Digest) -> int | None:
        """Returns the blob's size in bytes (HEAD), or None when it is not in this repository."""
        ...

    def read_blob(
        self, repository: Repository, blob: Descriptor, *, offset: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Streams a verified blob, and resumes by Range when a connection breaks, a bounded number of times.

        Args:
            offset: Streams only what follows these bytes, and verifies only the size: the caller, who joins several
                streams, verifies the whole.

        Raises:
            ContentMismatch: Instead of the last chunk, when size or digest is wrong.
        """
        ...

    async def mount_blob(self, repository: Repository, digest: Digest, from_repository: Repository) -> bool:
        """Mounts the blob from another repository of the same registry; returns False when the registry does not."""
        ...

    async def begin_upload(self, repository: Repository, digest: Digest) -> Upload | None:
        """Opens an upload session, or returns None when the blob exists.

        That takes one request at a registry that mounts blobs, else two.
        """
        ...

    async def cancel_upload(self, repository: Repository, upload: Upload) -> None:
        """Cancels an upload session within two seconds, or leaves it to the registry's purge. Raises nothing."""
        ...

    async def write_blob(
        self,
        repository: Repository,
        blob: Descriptor,
        chunks: AsyncIterator[bytes],
        upload: Upload | None = None,
    ) -> None:
        """Uploads a blob in one streamed PUT. An error of `chunks` is raised as it is, and nothing is committed.

        The given `upload` is closed in any case. A session that may have expired is replaced by a new one.
        """
        ...

    def tags(self, repository: Repository) -> AsyncIterator[Tag]:
        """Lists all tags, page by page.

        Raises:
            NotFound: The repository is missing.
            UnreadableNames: After the last tag, when some names were invalid.
        """
        ...

    def repositories(self) -> AsyncIterator[Repository]:
        """Lists the repositories of the registry's catalog that these credentials may see, page by page.

        Raises:
            Denied, NotFound, Rejected: The registry does not offer its catalog, as many do not.
            UnreadableNames: After the last repository, when some names were invalid.
        """
        ...


class Endpoint(Protocol):
    """A place's registry with its credentials, tokens and connections, shared by all its users."""

    def registry(self, side: Side, chain: Chain | None = None) -> Registry:
        """Returns the registry as one side of a task, which its errors carry. Pushes carry `chain`."""
        ...

    async def ping(self) -> None:
        """Raises the `RegistryError` that a request would meet now: unreachable, or credentials refused."""
        ...

    async def close(self) -> None:
        """Closes all connections."""
        ...
