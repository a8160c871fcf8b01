"""The built-in registry's uploads: at once, streamed or in chunks, or taken over from another repository.

A session outlives a broken connection: what came is kept, `GET` says how much it is, and the client goes on from there.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from mesh.clock import Clock
from mesh.registry.builtin.faults import Faults, Seen
from mesh.registry.builtin.notify import Notifier
from mesh.registry.builtin.refusals import Refused, parse_digest, parse_repository, repository_in
from mesh.registry.builtin.store import Incoming, Store
from schemas.names import Digest, Repository

_CHUNK_RANGE = re.compile(r"(\d{1,18})-(\d{1,18})", re.ASCII)


@dataclass(slots=True)
class Session:
    id: str
    repository: Repository
    incoming: Incoming
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # one request writes at a time

    @property
    def headers(self) -> dict[str, str]:
        """A session with nothing in it says `0-0`, as the distribution registry does."""
        return {
            "Location": f"/v2/{self.repository}/blobs/uploads/{self.id}",
            "Range": f"0-{max(0, self.incoming.size - 1)}",
            "Docker-Upload-UUID": self.id,
        }


class Uploads:
    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        faults: Faults,
        seen: Seen,
        notifier: Notifier,
        new_id: Callable[[], str],
    ) -> None:
        self._store = store
        self._clock = clock
        self._faults = faults
        self._seen = seen
        self._notifier = notifier
        self._new_id = new_id
        self._sessions: dict[str, Session] = {}

    def close(self) -> None:
        for session in list(self._sessions.values()):
            self._drop(session)

    async def start(self, request: web.Request) -> web.StreamResponse:
        """POST: a mount, a whole blob, or a session to go on with."""
        repository = repository_in(request)
        if mounted := self._mount(request, repository):
            return mounted
        if "digest" in request.query:
            return await self._whole(request, repository, parse_digest(request.query["digest"]))
        session = self._open(repository, _algorithm_asked(request))
        return web.Response(status=202, headers=session.headers)

    async def status(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=204, headers=self._session(request).headers)

    async def append(self, request: web.Request) -> web.StreamResponse:
        """PATCH: the next bytes, with or without `Content-Range`."""
        session = self._session(request)
        async with session.turn:
            self._session(request)  # it may have ended while this request waited for its turn
            await self._receive(request, session)
        return web.Response(status=202, headers=session.headers)

    async def finish(self, request: web.Request) -> web.StreamResponse:
        """PUT: the last bytes, if any, and the digest of all."""
        session = self._session(request)
        digest = parse_digest(request.query.get("digest", ""))
        async with session.turn:
            self._session(request)
            if not session.incoming.size:
                self._begin_again(session, digest.algorithm)
            await self._receive(request, session)
            return await self._commit(request, session, digest)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        session = self._session(request)
        async with session.turn:
            self._drop(self._session(request))
        return web.Response(status=204)

    def _session(self, request: web.Request) -> Session:
        session = self._sessions.get(request.match_info["session"])
        if session is None or session.repository != repository_in(request):
            raise Refused(404, "BLOB_UPLOAD_UNKNOWN", "no such upload in this repository")
        return session

    def _open(self, repository: Repository, algorithm: str) -> Session:
        session = Session(self._new_id(), repository, self._store.begin(algorithm))
        self._sessions[session.id] = session
        return session

    def _begin_again(self, session: Session, algorithm: str) -> None:
        session.incoming.drop()
        session.incoming = self._store.begin(algorithm)

    def _drop(self, session: Session) -> None:
        self._sessions.pop(session.id, None)
        session.incoming.drop()

    def _mount(self, request: web.Request, repository: Repository) -> web.Response | None:
        """None when there is no such blob in `from`, or no `from`: knowing a digest gives no right to its bytes."""
        if not {"mount", "from"} <= request.query.keys():
            return None
        digest, source = parse_digest(request.query["mount"]), parse_repository(request.query["from"])
        size = self._store.blob_size(source, digest)
        if size is None:
            return None
        self._store.link_blob(repository, digest)
        self._seen.mounts[digest] += 1
        target = _target(repository, digest, size) | {"fromRepository": source}
        self._notifier.announce("mount", request, target)
        return _created(repository, digest)

    async def _whole(self, request: web.Request, repository: Repository, digest: Digest) -> web.Response:
        session = self._open(repository, digest.algorithm)
        try:
            await self._receive(request, session)
            return await self._commit(request, session, digest)
        finally:
            if session.id in self._sessions:  # the client was never told of it
                self._drop(session)

    async def _receive(self, request: web.Request, session: Session) -> None:
        expected = _length_announced(request, session)
        before = session.incoming.size
        try:
            async for chunk in request.content.iter_chunked(self._faults.block):
                session.incoming.write(chunk)
                await self._faults.pace(len(chunk), self._clock)
        except (ConnectionError, aiohttp.ClientError, web.RequestPayloadError) as error:
            raise Refused(400, "BLOB_UPLOAD_INVALID", "the connection broke") from error
        if expected is not None and session.incoming.size - before != expected:
            self._drop(session)
            raise Refused(400, "SIZE_INVALID", f"not the {expected} bytes of Content-Range")

    async def _commit(self, request: web.Request, session: Session, digest: Digest) -> web.Response:
        del self._sessions[session.id]
        size = session.incoming.size
        if not await asyncio.to_thread(self._store.keep, session.incoming, digest):
            raise Refused(400, "DIGEST_INVALID", f"the bytes are not those of {digest}")
        self._seen.uploads[digest] += 1
        self._seen.blob_bytes_in[digest] += size
        if not self._faults.loses(digest, size):
            self._store.link_blob(session.repository, digest)
            self._notifier.announce("push", request, _target(session.repository, digest, size))
        return _created(session.repository, digest)


def _length_announced(request: web.Request, session: Session) -> int | None:
    """How many bytes `Content-Range` says will come; refused when they are not the next ones."""
    said = request.headers.get("Content-Range")
    if said is None:
        return None
    found = _CHUNK_RANGE.fullmatch(said)
    first, last = (int(found[1]), int(found[2])) if found else (-1, -1)
    if first != session.incoming.size or last < first:
        raise Refused(416, "BLOB_UPLOAD_INVALID", "not the next bytes", headers=session.headers)
    if request.content_length not in (None, last - first + 1):
        raise Refused(400, "SIZE_INVALID", "Content-Length is not the length of Content-Range")
    return last - first + 1


def _algorithm_asked(request: web.Request) -> str:
    algorithm = request.query.get("digest-algorithm", "sha256")
    if algorithm not in ("sha256", "sha512"):
        raise Refused(400, "DIGEST_INVALID", "digest-algorithm is sha256 or sha512")
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
