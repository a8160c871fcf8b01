"""The built-in registry's upload endpoints: monolithic, streamed or chunked uploads, and cross-repository mounts.

A session survives a broken connection: `GET` returns how much was received, and the client resumes there.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from mesh.clock import Clock
from mesh.registry.builtin.faults import Faults, Traffic
from mesh.registry.builtin.notify import Notifier
from mesh.registry.builtin.request_parsing import ApiError, parse_digest, parse_repository, repository_in
from mesh.registry.builtin.store import StagedFile, Store
from schemas.names import Digest, Repository

_CHUNK_RANGE = re.compile(r"(\d{1,18})-(\d{1,18})", re.ASCII)


@dataclass(slots=True)
class Session:
    """An upload session."""

    id: str
    repository: Repository
    staged: StagedFile
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # one request writes at a time

    @property
    def headers(self) -> dict[str, str]:
        """The headers that describe the session. An empty one has `0-0`, as in the distribution registry."""
        return {
            "Location": f"/v2/{self.repository}/blobs/uploads/{self.id}",
            "Range": f"0-{max(0, self.staged.size - 1)}",
            "Docker-Upload-UUID": self.id,
        }


class Uploads:
    """The handlers of `/v2/<name>/blobs/uploads/`."""

    def __init__(
        self, store: Store, *, clock: Clock, faults: Faults, traffic: Traffic, notifier: Notifier,
        new_id: Callable[[], str],
    ) -> None:  # fmt: skip
        self._store, self._clock, self._faults, self._traffic = store, clock, faults, traffic
        self._notifier, self._new_id = notifier, new_id
        self._sessions: dict[str, Session] = {}

    def close(self) -> None:
        """Discards all sessions."""
        for session in list(self._sessions.values()):
            self._discard(session)

    async def start(self, request: web.Request) -> web.StreamResponse:
        """Handles POST: mounts a blob, stores a whole one, or opens a session."""
        repository = repository_in(request)
        if mounted := self._mount(request, repository):
            return mounted
        if "digest" in request.query:
            return await self._whole(request, repository, parse_digest(request.query["digest"]))
        session = self._open(repository, _requested_algorithm(request))
        return web.Response(status=202, headers=session.headers)

    async def status(self, request: web.Request) -> web.StreamResponse:
        """Handles GET: returns how much was received."""
        return web.Response(status=204, headers=self._session(request).headers)

    async def append(self, request: web.Request) -> web.StreamResponse:
        """Handles PATCH: appends bytes, with or without `Content-Range`."""
        session = self._session(request)
        async with session.lock:
            self._session(request)  # it may have ended while this request waited for the lock
            await self._receive(request, session)
        return web.Response(status=202, headers=session.headers)

    async def finish(self, request: web.Request) -> web.StreamResponse:
        """Handles PUT: appends the last bytes, if any, and commits the blob by its digest."""
        session = self._session(request)
        digest = parse_digest(request.query.get("digest", ""))
        async with session.lock:
            self._session(request)
            if not session.staged.size:
                self._restage(session, digest.algorithm)
            await self._receive(request, session)
            return await self._commit(request, session, digest)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """Handles DELETE: discards the session."""
        session = self._session(request)
        async with session.lock:
            self._discard(self._session(request))
        return web.Response(status=204)

    def _session(self, request: web.Request) -> Session:
        session = self._sessions.get(request.match_info["session"])
        if session is None or session.repository != repository_in(request):
            raise ApiError(404, "BLOB_UPLOAD_UNKNOWN", "no such upload in this repository")
        return session

    def _open(self, repository: Repository, algorithm: str) -> Session:
        session = Session(self._new_id(), repository, self._store.stage(algorithm))
        self._sessions[session.id] = session
        return session

    def _restage(self, session: Session, algorithm: str) -> None:
        session.staged.discard()
        session.staged = self._store.stage(algorithm)

    def _discard(self, session: Session) -> None:
        self._sessions.pop(session.id, None)
        session.staged.discard()

    def _mount(self, request: web.Request, repository: Repository) -> web.Response | None:
        """Returns None without `from` or when the blob is not there: a digest alone gives no access to its bytes."""
        if not {"mount", "from"} <= request.query.keys():
            return None
        digest, source = parse_digest(request.query["mount"]), parse_repository(request.query["from"])
        size = self._store.blob_size(source, digest)
        if size is None:
            return None
        self._store.link_blob(repository, digest)
        self._traffic.mounts[digest] += 1
        target = _target(repository, digest, size) | {"fromRepository": source}
        self._notifier.announce("mount", request, target)
        return _created(repository, digest)

    async def _whole(self, request: web.Request, repository: Repository, digest: Digest) -> web.Response:
        session = self._open(repository, digest.algorithm)
        try:
            await self._receive(request, session)
            return await self._commit(request, session, digest)
        finally:
            if session.id in self._sessions:  # the client does not know it
                self._discard(session)

    async def _receive(self, request: web.Request, session: Session) -> None:
        expected = _expected_length(request, session)
        before = session.staged.size
        try:
            async for chunk in request.content.iter_chunked(self._faults.block):
                session.staged.write(chunk)
                await self._faults.pace(len(chunk), self._clock)
        except (ConnectionError, aiohttp.ClientError, web.RequestPayloadError) as error:
            raise ApiError(400, "BLOB_UPLOAD_INVALID", "the connection broke") from error
        if expected is not None and session.staged.size - before != expected:
            self._discard(session)
            raise ApiError(400, "SIZE_INVALID", f"not the {expected} bytes of Content-Range")

    async def _commit(self, request: web.Request, session: Session, digest: Digest) -> web.Response:
        del self._sessions[session.id]
        size = session.staged.size
        if not await asyncio.to_thread(self._store.commit, session.staged, digest):
            raise ApiError(400, "DIGEST_INVALID", f"the bytes are not those of {digest}")
        self._traffic.uploads[digest] += 1
        self._traffic.blob_bytes_in[digest] += size
        if not self._faults.loses(digest, size):
            self._store.link_blob(session.repository, digest)
            self._notifier.announce("push", request, _target(session.repository, digest, size))
        return _created(session.repository, digest)


def _expected_length(request: web.Request, session: Session) -> int | None:
    """Returns the number of bytes in `Content-Range`; raises `ApiError` when they are not the next ones."""
    header = request.headers.get("Content-Range")
    if header is None:
        return None
    found = _CHUNK_RANGE.fullmatch(header)
    first, last = (int(found[1]), int(found[2])) if found else (-1, -1)
    if first != session.staged.size or last < first:
        raise ApiError(416, "BLOB_UPLOAD_INVALID", "not the next bytes", headers=session.headers)
    if request.content_length not in (None, last - first + 1):
        raise ApiError(400, "SIZE_INVALID", "Content-Length is not the length of Content-Range")
    return last - first + 1


def _requested_algorithm(request: web.Request) -> str:
    algorithm = request.query.get("digest-algorithm", "sha256")
    if algorithm not in ("sha256", "sha512"):
        raise ApiError(400, "DIGEST_INVALID", "digest-algorithm is sha256 or sha512")
    return algorithm


def _created(repository: Repository, digest: Digest) -> web.Response:
    where = f"/v2/{repository}/blobs/{digest}"
    return web.Response(status=201, headers={"Location": where, "Docker-Content-Digest": digest})


def _target(repository: Repository, digest: Digest, size: int) -> dict[str, object]:
    return {
        "mediaType": "application/octet-stream",
        "digest": digest,
        "size": size,
        "length": size,
        "repository": repository,
        "path": f"/v2/{repository}/blobs/{digest}",
    }
