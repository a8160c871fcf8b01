"""The built-in registry's disk: content is stored once, and each repository has links to what it contains.

    content/sha256/ab/abcd...                             bytes; the file appears when it is complete
    repositories/team/app/_blobs/sha256/abcd...           empty: this repository has this blob
    repositories/team/app/_manifests/sha256/abcd...       the manifest's media type
    repositories/team/app/_tags/1.2                       the digest
    repositories/team/app/_referrers/sha256/<subject>/sha256-abcd...   the descriptor of a referrer
    incoming/                                             incomplete files; emptied at start

Paths consist of validated names; no part of a repository starts with `_`. A file is written in `incoming` and renamed,
so a crash leaves no partial file. Deleting removes links; content stays. Calls block, briefly.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import orjson

from schemas.names import Digest, MediaType, Reference, Repository, Tag


class StagedFile:
    """An incomplete file in `incoming` that is hashed as it is written."""

    def __init__(self, folder: Path, algorithm: str) -> None:
        descriptor, name = tempfile.mkstemp(dir=folder)
        self.path = Path(name)
        self.size = 0
        self._file: BinaryIO = os.fdopen(descriptor, "wb")
        self._hash = hashlib.new(algorithm)

    def write(self, chunk: bytes) -> None:
        """Appends a chunk."""
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def digest(self, algorithm: str) -> Digest:
        """Returns the digest of all bytes. Another algorithm than the initial one reads the file again."""
        self._file.flush()
        found = self._hash
        if found.name != algorithm:
            with self.path.open("rb") as file:
                found = hashlib.file_digest(file, algorithm)
        return Digest(f"{algorithm}:{found.hexdigest()}")

    def close(self, *, fsync: bool) -> None:
        """Closes the complete file."""
        self._file.flush()
        if fsync:
            os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """Deletes the file."""
        self._file.close()
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest in the store."""

    media_type: MediaType
    digest: Digest
    path: Path


class Store:
    """One registry's folder. With `fsync` acknowledged writes survive a power failure, but are slow."""

    def __init__(self, root: Path, *, fsync: bool = False) -> None:
        self._content = root / "content"
        self._repositories = root / "repositories"
        self._incoming = root / "incoming"
        self._fsync = fsync

    def open(self) -> None:
        """Creates the folders and deletes the incomplete files of a crash."""
        shutil.rmtree(self._incoming, ignore_errors=True)
        for folder in (self._content, self._repositories, self._incoming):
            folder.mkdir(parents=True, exist_ok=True)

    # content

    def stage(self, algorithm: str = "sha256") -> StagedFile:
        """Creates an empty staged file."""
        return StagedFile(self._incoming, algorithm)

    def commit(self, staged: StagedFile, digest: Digest) -> bool:
        """Moves a staged file to the content, or discards it and returns False when its digest is another one."""
        if staged.digest(digest.algorithm) != digest:
            staged.discard()
            return False
        staged.close(fsync=self._fsync)
        self._rename(staged.path, self.content_path(digest))
        return True

    def content_path(self, digest: Digest) -> Path:
        """Returns the path of the content."""
        algorithm, _, encoded = digest.partition(":")
        return self._content / algorithm / encoded[:2] / encoded

    # blobs

    def blob_size(self, repository: Repository, digest: Digest) -> int | None:
        """Returns the blob's size in bytes, or None when it is not in this repository."""
        if not self._link(repository, "_blobs", digest).exists():
            return None
        return self.content_path(digest).stat().st_size

    def link_blob(self, repository: Repository, digest: Digest) -> None:
        """Adds a blob to a repository."""
        self._put(self._link(repository, "_blobs", digest), b"")

    def unlink_blob(self, repository: Repository, digest: Digest) -> bool:
        """Removes a blob from a repository; returns whether it was there."""
        return _remove(self._link(repository, "_blobs", digest))

    # manifests and tags

    def put_manifest(
        self, repository: Repository, media_type: MediaType, digest: Digest, body: bytes
    ) -> None:
        """Stores a manifest in a repository."""
        self._put(self.content_path(digest), body)
        self._put(self._link(repository, "_manifests", digest), media_type.encode())

    def manifest(self, repository: Repository, reference: Reference) -> StoredManifest | None:
        """Returns the manifest of a tag or digest, or None."""
        digest = reference if isinstance(reference, Digest) else self.tagged(repository, reference)
        if digest is None:
            return None
        media_type = _read(self._link(repository, "_manifests", digest))
        if media_type is None:
            return None
        return StoredManifest(MediaType(media_type), digest, self.content_path(digest))

    def delete_manifest(self, repository: Repository, digest: Digest) -> bool:
        """Deletes a manifest with its tags; returns whether it was there."""
        for tag in self.tags(repository):
            if self.tagged(repository, tag) == digest:
                self.delete_tag(repository, tag)
        return _remove(self._link(repository, "_manifests", digest))

    def holds(self, repository: Repository, digest: Digest) -> bool:
        """Returns whether the repository has the digest as a manifest or as a blob."""
        return any(self._link(repository, kind, digest).exists() for kind in ("_manifests", "_blobs"))

    def put_tag(self, repository: Repository, tag: Tag, digest: Digest) -> None:
        """Sets a tag."""
        self._put(self._tag(repository, tag), digest.encode())

    def tagged(self, repository: Repository, tag: Tag) -> Digest | None:
        """Returns the digest that a tag names, or None."""
        found = _read(self._tag(repository, tag))
        return None if found is None else Digest(found)

    def delete_tag(self, repository: Repository, tag: Tag) -> bool:
        """Deletes a tag; returns whether it was there."""
        return _remove(self._tag(repository, tag))

    def tags(self, repository: Repository) -> list[Tag]:
        """Returns the tags in lexical order."""
        folder = self._repositories / repository / "_tags"
        return sorted(Tag(path.name) for path in folder.iterdir()) if folder.is_dir() else []

    # referrers

    def put_referrer(self, repository: Repository, subject: Digest, descriptor: dict[str, object]) -> None:
        """Adds a descriptor to the referrers of `subject`."""
        name = str(descriptor["digest"]).replace(":", "-")
        self._put(self._link(repository, "_referrers", subject) / name, orjson.dumps(descriptor))

    def delete_referrer(self, repository: Repository, subject: Digest, digest: Digest) -> None:
        """Removes a digest from the referrers of `subject`."""
        _remove(self._link(repository, "_referrers", subject) / digest.replace(":", "-"))

    def referrers(self, repository: Repository, subject: Digest) -> list[dict[str, object]]:
        """Returns the descriptors of the referrers of `subject`."""
        folder = self._link(repository, "_referrers", subject)
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        return [orjson.loads(path.read_bytes()) for path in found]

    # repositories

    def knows(self, repository: Repository) -> bool:
        """Returns whether anything was ever stored in the repository."""
        folder = self._repositories / repository
        return (folder / "_blobs").is_dir() or (folder / "_manifests").is_dir()

    def repositories(self) -> list[Repository]:
        """Returns the repositories in lexical order."""
        return sorted(self._walk())

    def _walk(self) -> Iterator[Repository]:
        for folder, names, _ in os.walk(self._repositories):
            if "_blobs" in names or "_manifests" in names:
                yield Repository(Path(folder).relative_to(self._repositories).as_posix())
            names[:] = [name for name in names if not name.startswith("_")]

    def _tag(self, repository: Repository, tag: Tag) -> Path:
        return self._repositories / repository / "_tags" / tag

    def _link(self, repository: Repository, kind: str, digest: Digest) -> Path:
        algorithm, _, encoded = digest.partition(":")
        return self._repositories / repository / kind / algorithm / encoded

    def _put(self, path: Path, body: bytes) -> None:
        staged = self.stage()
        staged.write(body)
        staged.close(fsync=self._fsync)
        self._rename(staged.path, path)

    def _rename(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
        if self._fsync:
            _fsync_folder(target.parent)


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
