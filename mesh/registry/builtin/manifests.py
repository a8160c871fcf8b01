"""The built-in registry's endpoints of manifests, tags, referrers and the catalog."""

from collections.abc import Iterable
from typing import Literal

import orjson
from aiohttp import web

from mesh.clock import Clock
from mesh.registry.builtin.faults import Faults, falsified
from mesh.registry.builtin.manifest_parser import ParsedManifest, parse_manifest
from mesh.registry.builtin.notify import Notifier
from mesh.registry.builtin.request_parsing import (
    ApiError,
    digest_in,
    page_of,
    parse_reference,
    reference_in,
    repository_in,
)
from mesh.registry.builtin.store import Store, StoredManifest
from mesh.registry.manifests import INDEX_TYPES, OCI_INDEX
from mesh.registry.port import MAX_MANIFEST, digest_of
from schemas.names import Digest, Reference, Repository, Tag

Deletes = Literal["nothing", "digests", "tags"]


class Manifests:
    """The handlers of manifests, tags, referrers and the catalog."""

    def __init__(
        self, store: Store, *, clock: Clock, faults: Faults, notifier: Notifier, has_referrers: bool = True,
        takes_sparse: bool = False, deletes: Deletes = "tags",
    ) -> None:  # fmt: skip
        self._store = store
        self._has_referrers = has_referrers
        self._takes_sparse = takes_sparse
        self._deletes = deletes
        self._clock = clock
        self._faults = faults
        self._notifier = notifier

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Answers GET and HEAD."""
        repository, reference = repository_in(request), reference_in(request)
        manifest = self._store.manifest(repository, reference)
        if manifest is None:
            raise self._unknown(repository, reference)
        headers = {"Content-Type": manifest.media_type, "Docker-Content-Digest": manifest.digest}
        body = manifest.path.read_bytes()
        if request.method == "GET" and self._faults.lies(manifest.digest):
            body = falsified(body)
        return web.Response(body=body, headers=headers)

    async def put(self, request: web.Request) -> web.StreamResponse:
        """Stores a manifest whose parts exist, and its tags."""
        repository, reference = repository_in(request), reference_in(request)
        body = await _body_of(request)
        manifest = _parsed(body, request)
        digest = _checked_digest(body, reference)
        tags = _requested_tags(request, reference)
        if not (self._takes_sparse and manifest.media_type in INDEX_TYPES):
            self._require(repository, manifest.parts)
        self._write(repository, manifest, digest, body)
        await self._name(request, repository, _target(repository, manifest, digest, body), tags)
        headers = {"Location": _path(repository, digest), "Docker-Content-Digest": digest}
        if manifest.subject is not None and self._has_referrers:
            headers["OCI-Subject"] = manifest.subject
        if tags and isinstance(reference, Digest):
            headers["OCI-Tag"] = ", ".join(tags)
        return web.Response(status=201, headers=headers)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Deletes a tag alone, or a manifest with all its tags."""
        repository, reference = repository_in(request), reference_in(request)
        if self._deletes == "nothing":
            raise ApiError(405, "UNSUPPORTED", "this registry does not delete")
        if self._deletes == "digests" and isinstance(reference, Tag):
            raise ApiError(400, "UNSUPPORTED", "this registry deletes by digest only")
        if isinstance(reference, Tag):
            existed = self._store.delete_tag(repository, reference)
            target: dict[str, object] = {"repository": repository, "tag": reference}
        else:
            existed = self._delete_manifest(repository, reference)
            target = {"repository": repository, "digest": reference}
        if not existed:
            raise self._unknown(repository, reference)
        self._notifier.announce("delete", request, target)
        return web.Response(status=202)

    async def tags(self, request: web.Request) -> web.StreamResponse:
        """Lists the tags of a repository."""
        repository = repository_in(request)
        if not self._store.knows(repository):
            raise ApiError(404, "NAME_UNKNOWN", f"{repository} is not known here")
        page, headers = page_of(self._store.tags(repository), request)
        return _json({"name": repository, "tags": page}, headers=headers)

    async def catalog(self, request: web.Request) -> web.StreamResponse:
        """Lists all repositories."""
        page, headers = page_of(self._store.repositories(), request)
        return _json({"repositories": page}, headers=headers)

    async def referrers(self, request: web.Request) -> web.StreamResponse:
        """Lists the referrers of a digest in an index, which is empty when there are none."""
        if not self._has_referrers:
            raise ApiError(404, "UNSUPPORTED", "there is no referrers API here")
        found = self._store.referrers(repository_in(request), digest_in(request))
        headers = {}
        if wanted := request.query.get("artifactType"):
            found = [descriptor for descriptor in found if descriptor.get("artifactType") == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}
        return _json(index, content_type=OCI_INDEX, headers=headers)

    def _require(self, repository: Repository, parts: Iterable[Digest]) -> None:
        missing = [part for part in parts if not self._store.holds(repository, part)]
        if missing:
            raise ApiError(400, "MANIFEST_BLOB_UNKNOWN", f"not in {repository}: {', '.join(missing[:10])}")

    def _write(self, repository: Repository, manifest: ParsedManifest, digest: Digest, body: bytes) -> None:
        if manifest.subject is not None:
            descriptor = manifest.descriptor(digest, len(body))
            self._store.put_referrer(repository, manifest.subject, descriptor)
        self._store.put_manifest(repository, manifest.media_type, digest, body)

    async def _name(
        self, request: web.Request, repository: Repository, target: dict[str, object], tags: list[Tag]
    ) -> None:
        """Stores the tags and then notifies; before it when the fault says so."""
        targets = [target | {"tag": tag} for tag in tags] or [target]
        lead = self._faults.announce_first if tags else None
        if lead is not None:
            self._faults.struck["announce_first"] += 1
            for announced in [self._notifier.announce("push", request, each) for each in targets]:
                await announced.wait()
            await self._clock.sleep(lead)
        for tag in tags:
            self._store.put_tag(repository, tag, Digest(str(target["digest"])))
        if lead is None:
            for each in targets:
                self._notifier.announce("push", request, each)

    def _delete_manifest(self, repository: Repository, digest: Digest) -> bool:
        manifest = self._store.manifest(repository, digest)
        if manifest is None:
            return False
        if (subject := _subject_of(manifest)) is not None:
            self._store.delete_referrer(repository, subject, digest)
        return self._store.delete_manifest(repository, digest)

    def _unknown(self, repository: Repository, reference: Reference) -> ApiError:
        if not self._store.knows(repository):
            return ApiError(404, "NAME_UNKNOWN", f"{repository} is not known here")
        return ApiError(404, "MANIFEST_UNKNOWN", f"{reference} is not in {repository}")


async def _body_of(request: web.Request) -> bytes:
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > MAX_MANIFEST:
            raise ApiError(413, "SIZE_INVALID", f"a manifest has at most {MAX_MANIFEST} bytes")
    return bytes(body)


def _parsed(body: bytes, request: web.Request) -> ParsedManifest:
    content_type = request.headers.get("Content-Type", "").partition(";")[0].strip()
    try:
        return parse_manifest(body, content_type or None)
    except ValueError as error:
        raise ApiError(400, "MANIFEST_INVALID", str(error)) from error


def _checked_digest(body: bytes, reference: Reference) -> Digest:
    if isinstance(reference, Tag):
        return digest_of(body)
    digest = digest_of(body, reference.algorithm)
    if digest != reference:
        raise ApiError(400, "DIGEST_INVALID", f"the bytes are those of {digest}")
    return digest


def _requested_tags(request: web.Request, reference: Reference) -> list[Tag]:
    """Returns the tag in the path, or those in the query when the path has a digest."""
    if isinstance(reference, Tag):
        return [reference]
    asked = [parse_reference(text) for text in request.query.getall("tag", [])]
    return [tag for tag in dict.fromkeys(asked) if isinstance(tag, Tag)]


def _subject_of(manifest: StoredManifest) -> Digest | None:
    return parse_manifest(manifest.path.read_bytes(), manifest.media_type).subject


def _path(repository: Repository, digest: Digest) -> str:
    return f"/v2/{repository}/manifests/{digest}"


def _target(
    repository: Repository, manifest: ParsedManifest, digest: Digest, body: bytes
) -> dict[str, object]:
    return {
        "mediaType": manifest.media_type,
        "digest": digest,
        "size": len(body),
        "length": len(body),
        "repository": repository,
        "path": _path(repository, digest),
    }


def _json(
    body: object, *, headers: dict[str, str], content_type: str = "application/json"
) -> web.StreamResponse:
    return web.Response(body=orjson.dumps(body), content_type=content_type, headers=headers)
