"""Blob uploads: POST for a session, then one streamed PUT, which every registry supports.

Source: OCI Distribution specification, "Pushing a blob monolithically" and "Mounting a blob from another repository".
"""

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
from mesh.registry.sessions import COMMIT, STALL_SECONDS
from mesh.registry.transport import Call, Channel
from schemas.completions import Side
from schemas.names import Digest, Repository

_SESSION_SECONDS = 60.0  # every registry keeps an idle upload session for so long
_CANCEL_SECONDS = 2.0  # a session that cannot be cancelled by then is left to the registry's own purge


async def begin(channel: Channel, repository: Repository) -> Upload:
    """Opens an upload session."""
    call = Call("POST", channel.url(f"{repository}/blobs/uploads/"), auth.push(repository))
    started = channel.transport.clock.monotonic()
    async with channel.request(call, (202,)) as response:
        return _upload_of(channel, response, started)


async def begin_unless_mounted(
    channel: Channel, repository: Repository, digest: Digest, from_repository: Repository
) -> Upload | None:
    """Mounts the blob and returns None, or opens an upload session when the registry does not mount it.

    With the repository itself as `from_repository`, a registry that mounts answers whether it has the blob.

    Raises:
        Denied, NotFound, Rejected: The registry does not support mounts.
    """
    url = channel.url(f"{repository}/blobs/uploads/", f"?mount={digest}&from={from_repository}")
    scopes = auth.push(repository)
    if from_repository != repository:
        scopes = (*scopes, *auth.pull(from_repository))
    started = channel.transport.clock.monotonic()
    async with channel.request(Call("POST", url, scopes), (201, 202)) as response:
        return None if response.status == 201 else _upload_of(channel, response, started)


def _upload_of(channel: Channel, response: ClientResponse, started: float) -> Upload:
    return Upload(channel.locate(response.url, response.headers.get("Location")), started)


async def write_blob(
    channel: Channel,
    repository: Repository,
    blob: Descriptor,
    chunks: AsyncIterator[bytes],
    upload: Upload | None = None,
) -> None:
    """Uploads `chunks` as `blob`. Nothing is committed when they raise, or when their size is wrong.

    An `upload` that may have expired is cancelled and replaced by a new session.
    """
    if upload is not None and channel.transport.clock.monotonic() - upload.started > _SESSION_SECONDS:
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
    """Mounts a blob; returns False when the registry does not, so that the blob has to be uploaded."""
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
    """Cancels an upload session if that is possible; its registry purges one left open."""
    with contextlib.suppress(RegistryError, TimeoutError):
        async with asyncio.timeout(_CANCEL_SECONDS):
            call = Call("DELETE", upload.session, auth.push(repository))
            async with channel.request(call, range(200, 300)):
                pass


class BlobBody(Payload):
    """A request body of known size that streams `chunks`.

    When `chunks` raise, aiohttp aborts the connection short of the Content-Length, so that no registry commits the
    blob; `failure` keeps the error. A stalled write is aborted after the same time as a stalled read.
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
        pending = b""  # sent one chunk late: a source that raises after its last byte must not commit either
        while (chunk := await self._next_chunk()) is not None:
            left -= len(chunk)
            if left < 0:
                raise self._mismatch()
            await _send(writer, pending)
            pending = chunk
        if left:
            raise self._mismatch()
        await _send(writer, pending)

    async def _next_chunk(self) -> bytes | None:
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            return None
        except Exception as error:
            self.failure = error
            raise

    def _mismatch(self) -> ContentMismatch:
        self.failure = ContentMismatch(
            f"the stream of {self._blob.digest} does not have {self._blob.size} bytes", side=self._side
        )
        return self.failure


async def _send(writer: AbstractStreamWriter, chunk: bytes) -> None:
    if chunk:
        async with asyncio.timeout(STALL_SECONDS):
            await writer.write(chunk)
