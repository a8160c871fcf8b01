"""The built-in registry's blob endpoints: HEAD, GET with ranges, and DELETE."""

from collections.abc import Iterator
from pathlib import Path

from aiohttp import web

from mesh.clock import Clock
from mesh.registry.builtin.faults import Faults, Traffic, falsified
from mesh.registry.builtin.request_parsing import ApiError, digest_in, repository_in
from mesh.registry.builtin.store import Store
from schemas.names import Digest, Repository


class Blobs:
    """The handlers of `/v2/<name>/blobs/<digest>`."""

    def __init__(self, store: Store, *, clock: Clock, faults: Faults, traffic: Traffic) -> None:
        self._store = store
        self._clock = clock
        self._faults = faults
        self._traffic = traffic

    async def head(self, request: web.Request) -> web.StreamResponse:
        """Answers with the blob's size."""
        digest = digest_in(request)
        size = self._store.blob_size(repository_in(request), digest)
        if size is None:
            size = self._faults.ghosts.get(digest)
        if size is None:
            raise _unknown(digest)
        return web.Response(headers=_headers(digest) | {"Content-Length": str(size)})

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Sends the blob, or the range that is requested."""
        repository, digest = repository_in(request), digest_in(request)
        size = self._size(repository, digest)
        requested = _requested_range(request, size)
        part = range(size) if requested is None else requested
        response = web.StreamResponse(headers=_headers(digest))
        response.content_length = len(part)
        if requested is not None:
            response.set_status(206)
            response.headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
        self._traffic.pulls[digest] += 1
        await response.prepare(request)
        await self._send(request, response, digest, part)
        return response

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Removes the blob from the repository."""
        digest = digest_in(request)
        if not self._store.unlink_blob(repository_in(request), digest):
            raise _unknown(digest)
        return web.Response(status=202)

    def _size(self, repository: Repository, digest: Digest) -> int:
        size = self._store.blob_size(repository, digest)
        if size is None:
            raise _unknown(digest)
        return size

    async def _send(
        self, request: web.Request, response: web.StreamResponse, digest: Digest, part: range
    ) -> None:
        cut = self._faults.cuts_after(len(part))
        sent = part if cut is None else part[:cut]
        lies = self._faults.lies(digest)
        await self._faults.hold(digest)
        try:
            for chunk in _chunks(self._store.content_path(digest), sent, self._faults.block):
                await response.write(falsified(chunk) if lies else chunk)
                lies = False
                self._traffic.blob_bytes_out[digest] += len(chunk)
                await self._faults.pace(len(chunk), self._clock)
        except ConnectionError:
            return  # the client has disconnected
        if cut is not None and request.transport is not None:
            request.transport.close()


def _chunks(path: Path, part: range, block: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(part.start)
        left = len(part)
        while left and (chunk := file.read(min(block, left))):
            left -= len(chunk)
            yield chunk


def _requested_range(request: web.Request, size: int) -> range | None:
    """Returns None for the whole blob, also when the unit is not `bytes` or several ranges are requested."""
    header = request.headers.get("Range", "")
    if not header.startswith("bytes=") or "," in header:
        return None
    try:
        part = range(size)[request.http_range]
    except ValueError:
        part = range(0)
    if not part:
        raise ApiError(416, "UNSUPPORTED", "no such range", headers={"Content-Range": f"bytes */{size}"})
    return part


def _headers(digest: Digest) -> dict[str, str]:
    return {
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
        "Docker-Content-Digest": digest,
    }


def _unknown(digest: Digest) -> ApiError:
    return ApiError(404, "BLOB_UNKNOWN", f"{digest} is not in this repository")
