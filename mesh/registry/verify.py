"""Verifies content against its digest and size: blobs while they stream, manifests as a whole. Pure."""

import hashlib
from typing import Any

import orjson

from mesh.errors import ContentMismatch, ContentRefused, Rejected
from mesh.registry.manifests import INDEX_TYPES, MANIFEST_TYPES
from mesh.registry.port import MAX_MANIFEST, Descriptor, Manifest, digest_of
from schemas.completions import Side
from schemas.names import Digest, MediaType, Reference


class Verifier:
    """Verifies a blob chunk by chunk, in place: hashing 1 MiB takes less time than a switch to a thread and back."""

    def __init__(self, blob: Descriptor, side: Side) -> None:
        self._blob = blob
        self._side = side
        self._hash = hashlib.new(blob.digest.algorithm)
        self.received = 0

    @property
    def complete(self) -> bool:
        """Whether all bytes have been received."""
        return self.received == self._blob.size

    def add(self, chunk: bytes) -> None:
        """Hashes the next chunk.

        Raises:
            ContentMismatch: There are more bytes than the descriptor's size.
        """
        self.received += len(chunk)
        if self.received > self._blob.size:
            raise self.mismatch(f"more than {self._blob.size} bytes")
        self._hash.update(chunk)

    def check(self) -> None:
        """Checks size and digest at the end of the blob.

        Raises:
            ContentMismatch: One of them is wrong.
        """
        if not self.complete:
            raise self.mismatch(f"{self.received} bytes instead of {self._blob.size}")
        if f"{self._blob.digest.algorithm}:{self._hash.hexdigest()}" != self._blob.digest:
            raise self.mismatch("other content")

    def mismatch(self, found: str) -> ContentMismatch:
        """Returns the error that says what the blob has instead."""
        return ContentMismatch(f"blob {self._blob.digest} has {found}", side=self._side)


class SizeVerifier(Verifier):
    """Verifies only the size, of what follows the first `offset` bytes, which another stream has sent."""

    def __init__(self, blob: Descriptor, side: Side, offset: int) -> None:
        super().__init__(blob, side)
        self.received = offset

    def add(self, chunk: bytes) -> None:
        self.received += len(chunk)
        if self.received > self._blob.size:
            raise self.mismatch(f"more than {self._blob.size} bytes")

    def check(self) -> None:
        if not self.complete:
            raise self.mismatch(f"{self.received} bytes instead of {self._blob.size}")


def check_manifest(
    body: bytes, *, wanted: Reference, content_type: str | None, claimed: str | None, side: Side
) -> Manifest:
    """Verifies and returns a manifest that a registry sent.

    Args:
        wanted: The reference that was requested.
        claimed: The answer's `Docker-Content-Digest`.

    Raises:
        ContentMismatch: The bytes do not match one of these digests.
        ContentRefused: The manifest is too large, or its type is unclear.
    """
    if len(body) > MAX_MANIFEST:
        raise ContentRefused(f"manifest {wanted} is over {MAX_MANIFEST} bytes", side=side)
    named = claimed_digest(claimed, side=side)
    for digest in (wanted, named):
        if isinstance(digest, Digest) and digest_of(body, digest.algorithm) != digest:
            raise ContentMismatch(f"manifest {wanted} has other content than {digest}", side=side)
    digest = wanted if isinstance(wanted, Digest) else named or digest_of(body)
    return Manifest(_media_type(body, wanted, content_type, side), digest, body)


def claimed_digest(header: str | None, *, side: Side) -> Digest | None:
    """Parses a `Docker-Content-Digest` header, or returns None without one.

    Raises:
        Rejected: It is not a digest.
    """
    if not header:
        return None
    try:
        return Digest(header)
    except ValueError as error:
        raise Rejected(f"the registry names an invalid digest: {error}", side=side) from error


def check_stored(stored: Digest | None, wanted: Digest, *, side: Side) -> None:
    """Compares the digest that a registry returned, which may use another algorithm or be missing.

    Raises:
        ContentMismatch: The registry has other content.
    """
    if stored is not None and stored.algorithm == wanted.algorithm and stored != wanted:
        raise ContentMismatch(f"the registry has {stored} for {wanted}", side=side)


def plain_type(content_type: str | None) -> MediaType | None:
    """Returns a Content-Type without its parameters, or None when it is not a media type."""
    try:
        return MediaType((content_type or "").partition(";")[0].strip())
    except ValueError:
        return None


def _media_type(body: bytes, wanted: Reference, content_type: str | None, side: Side) -> MediaType:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ContentRefused(f"manifest {wanted} is not JSON", side=side) from error
    if not isinstance(document, dict):
        raise ContentRefused(f"manifest {wanted} is not a JSON object", side=side)
    sent = plain_type(content_type)
    stated = document.get("mediaType")
    media_type = sent or plain_type(str(stated or ""))
    if media_type is None or (stated is not None and stated != media_type):
        raise ContentRefused(
            f"manifest {wanted} was sent as {sent}, but its mediaType is {stated!r}", side=side
        )
    if _is_ambiguous(document, media_type):
        raise ContentRefused(f"manifest {wanted} is both an index and an image manifest", side=side)
    return media_type


def _is_ambiguous(document: dict[str, Any], media_type: MediaType) -> bool:
    """Returns whether two clients could parse the document as different types (CVE-2021-41190)."""
    as_index = "manifests" in document
    as_image = "layers" in document or "config" in document
    if media_type in INDEX_TYPES:
        return as_image
    if media_type in MANIFEST_TYPES:
        return as_index
    return as_index and as_image
