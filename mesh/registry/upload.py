"""POST for a session, then one streamed PUT: the one way of uploading that every registry takes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import ClientResponse
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from yarl import URL

from mesh.errors import ContentMismatch, Denied, NotFound, RegistryError, Rejected
from mesh.registry import auth, redirects, verify
from mesh.registry.port import Descriptor, Upload
from mesh.registry.transport import COMMIT, STALL_SECONDS, Call, Channel
from schemas.completions import Side
from schemas.names import Digest, Repository

_KEPT_SECONDS = 60.0  # that every registry keeps an upload that nothing comes for
_CANCEL_SECONDS = 2.0  # a session that can't be cancelled by then is left to the registry's own purge


async def begin(channel: Channel, repository: Repository) -> Upload:
    start = Call("POST", channel.url(f"{repository}/blobs/uploads/"), auth.push(repository))
    asked = channel.transport.clock.monotonic()
    async with channel.request(start, (202,)) as response:
        return _in_progress(channel, response, asked)


async def begin_unless_mounted(
    channel: Channel, repository: Repository, digest: Digest, from_repository: Repository
) -> Upload | None:
    """None when it could be mounted. From the repository itself, at a registry that mounts: None when it is there.

    `Denied`, `NotFound` or `Rejected` by a registry that knows no mounts.
    """
    url = channel.url(f"{repository}/blobs/uploads/", f"?mount={digest}&from={from_repository}")
    scopes = auth.push(repository)
    if from_repository != repository:
        scopes = (*scopes, *auth.pull(from_repository))
    asked = channel.transport.clock.monotonic()
    async with channel.request(Call("POST", url, scopes), (201, 202)) as response:
        return None if response.status == 201 else _in_progress(channel, response, asked)


def _in_progress(channel: Channel, response: ClientResponse, asked: float) -> Upload:
    return Upload(channel.locate(response.url, response.headers.get("Location")), asked)


async def write_blob(
    channel: Channel,
    repository: Repository,
    blob: Descriptor,
    chunks: AsyncIterator[bytes],
    upload: Upload | None = None,
) -> None:
    """Upload `chunks` as `blob`. When they raise, or are not of its size, nothing is committed.

    `upload` is cancelled, and another one begun, when registries may have forgotten it by now.
    """
    if upload is not None and channel.transport.clock.monotonic() - upload.begun > _KEPT_SECONDS:
        await cancel(channel, repository, upload)
        upload = None
    session = upload or await begin(channel, repository)
    try:
        await _put(channel, repository, session.session, blob, chunks)
    except BaseException:
        await cancel(channel, repository, session)
        raise


async def mount_blob(
    channel: Channel, repository: Repository, digest: Digest, from_repository: Repository
) -> bool:
    """False when the registry would not: the blob is then to be uploaded, and that says why if it can't be."""
    try:
        upload = await begin_unless_mounted(channel, repository, digest, from_repository)
    except (Denied, NotFound, Rejected):
        return False
    if upload is not None:
        await cancel(channel, repository, upload)
    return upload is None


async def _put(
    channel: Channel, repository: Repository, session: URL, blob: Descriptor, chunks: AsyncIterator[bytes]
) -> None:
    body = BlobBody(blob, chunks, channel.side)
    call = Call(
        "PUT",
        redirects.with_digest(session, blob.digest),
        auth.push(repository),
        headers={"Content-Type": "application/octet-stream"},
        body=body,
        timeout=COMMIT,
    )
    try:
        async with channel.request(call, (201,)) as response:
            claimed = verify.claimed_digest(response.headers.get("Docker-Content-Digest"), side=channel.side)
    except RegistryError:
        if body.failure is not None:
            raise body.failure from None
        raise
    verify.check_stored(claimed, blob.digest, side=channel.side)


async def cancel(channel: Channel, repository: Repository, upload: Upload) -> None:
    """Best effort: a session left open is purged by its registry in time."""
    with contextlib.suppress(RegistryError, TimeoutError):
        async with asyncio.timeout(_CANCEL_SECONDS):
            call = Call("DELETE", upload.session, auth.push(repository))
            async with channel.request(call, range(200, 300)):
                pass


class BlobBody(Payload):
    """A request body of known size from chunks that come when they come.

    Where `chunks` raise, aiohttp aborts the connection short of the Content-Length, so no registry takes it for
    whole; `failure` keeps the error. Writing a chunk may not stall for longer than reading one may.
    """

    def __init__(self, blob: Descriptor, chunks: AsyncIterator[bytes], side: Side) -> None:
        super().__init__(chunks)
        self._size = blob.size
        self._chunks = chunks
        self._blob = blob
        self._side = side
        self.failure: Exception | None = None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002  # aiohttp's signature
        raise TypeError("a streamed body is not text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        self._consumed = True  # aiohttp must not send it twice
        left = self._blob.size
        held = b""  # one chunk behind: a source that raises after its last byte must commit nothing either
        while (chunk := await self._next()) is not None:
            left -= len(chunk)
            if left < 0:
                raise self._mismatch()
            await _send(writer, held)
            held = chunk
        if left:
            raise self._mismatch()
        await _send(writer, held)

    async def _next(self) -> bytes | None:
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            return None
        except Exception as error:
            self.failure = error
            raise

    def _mismatch(self) -> ContentMismatch:
        self.failure = ContentMismatch(
            f"the stream for {self._blob.digest} is not of {self._blob.size} bytes", side=self._side
        )
        return self.failure


async def _send(writer: AbstractStreamWriter, chunk: bytes) -> None:
    if chunk:
        async with asyncio.timeout(STALL_SECONDS):
            await writer.write(chunk)
