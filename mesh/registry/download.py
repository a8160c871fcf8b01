"""Blob downloads: a verified stream that resumes after a broken connection."""

import contextlib
from collections.abc import Iterator

from aiohttp import ClientResponse

from mesh.errors import RegistryError, Rejected, ServerFault, Throttled, Unreachable
from mesh.registry import auth, failures
from mesh.registry.port import Descriptor
from mesh.registry.sessions import STREAM
from mesh.registry.transport import Call, Channel
from mesh.registry.verify import SizeVerifier, Verifier
from mesh.retry import Backoff
from schemas.names import Repository

_ATTEMPTS = 8  # about 15 s of waiting in total, in which a restarted registry is back
_BACKOFF = Backoff(first=0.2, longest=5.0)
_PROGRESS = 1024 * 1024  # bytes after which a broken connection starts the attempts anew
_LONGEST_RETRY_AFTER = 30.0  # seconds to wait here; the caller waits for a longer Retry-After


class BlobReader:
    """An async iterator of chunks of at most 768 KiB. Open it once, and close it.

    It is not a generator, as an upload reads it in a task of its own and a running generator cannot be closed.
    """

    def __init__(
        self, channel: Channel, repository: Repository, blob: Descriptor, offset: int | None = None
    ) -> None:
        self._channel = channel
        self._repository = repository
        self._blob = blob
        self._verifier = (
            Verifier(blob, channel.side) if offset is None else SizeVerifier(blob, channel.side, offset)
        )
        self._response: ClientResponse | None = None
        self._skip = 0  # bytes of the current answer that were received before
        self._waits = self._fresh_waits()
        self._broke_at = 0
        self._ended = False

    async def open(self) -> None:
        """Sends the first request.

        Raises:
            RegistryError: The registry refuses it, as `NotFound`, `Denied` and so on.
        """
        self._broke_at = self._verifier.received
        self._response = await self._get(self._verifier.received)

    def close(self) -> None:
        """Closes the connection; iteration ends."""
        if self._response is not None:
            self._response.close()
        self._ended = True

    def __aiter__(self) -> "BlobReader":
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        chunk = await self._receive()
        self._verifier.add(chunk)
        if self._verifier.complete or not chunk:
            await self._finish()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def _finish(self) -> None:
        """Verifies the blob before its last chunk is returned, and that nothing follows it."""
        self._verifier.check()
        with contextlib.suppress(Unreachable):  # broken after the last byte: the blob is complete
            self._verifier.add(await self._read())
        self.close()

    async def _receive(self) -> bytes:
        """Returns the next new bytes; empty at the end of the body."""
        while True:
            try:
                chunk = await self._read()
            except Unreachable as error:
                await self._resume(error)
                continue
            skipped = min(self._skip, len(chunk))
            self._skip -= skipped
            if not chunk or skipped < len(chunk):
                return chunk[skipped:]

    async def _read(self) -> bytes:
        """Returns one buffered piece: `readany` would join, and so copy, all of them."""
        assert self._response is not None
        with failures.translated(self._channel.transport.name, self._channel.side):
            while True:
                chunk, is_boundary = await self._response.content.readchunk()
                if (
                    chunk or not is_boundary
                ):  # an empty piece at a boundary of chunked encoding is not the end
                    return chunk

    async def _resume(self, error: RegistryError) -> None:
        """Sends a new request for the rest. Raises the last error when no attempts are left."""
        if self._verifier.received - self._broke_at >= _PROGRESS:
            self._waits = self._fresh_waits()
        self._broke_at = self._verifier.received
        if self._response is not None:
            self._response.close()
        for wait in self._waits:
            await self._channel.transport.clock.sleep(_wait(error, wait))
            if self._ended:  # closed meanwhile, as an upload reads in a task of its own
                break
            try:
                self._response = await self._get(self._verifier.received)
            except (Unreachable, ServerFault, Throttled) as another:
                error = another
            else:
                if self._ended:
                    self._response.close()
                return
        raise error

    def _fresh_waits(self) -> Iterator[float]:
        return _BACKOFF.waits(_ATTEMPTS, self._channel.transport.random)

    async def _get(self, offset: int) -> ClientResponse:
        call = Call(
            "GET",
            self._channel.url(f"{self._repository}/blobs/{self._blob.digest}"),
            auth.pull(self._repository),
            headers={"Range": f"bytes={offset}-"} if offset else {},
            timeout=STREAM,
        )
        response = await self._channel.send(call, (200, 206) if offset else (200,))
        try:
            self._check_answer(response, offset)
        except RegistryError:
            response.close()
            raise
        return response

    def _check_answer(self, response: ClientResponse, offset: int) -> None:
        """Raises when range or length is wrong. Of an answer that ignores the Range, the first bytes are skipped."""
        partial = response.status == 206
        self._skip = 0 if partial else offset
        if partial and not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            raise Rejected("the registry answered with another range than requested", side=self._channel.side)
        length = response.content_length
        wanted = self._blob.size - (offset if partial else 0)
        if length is not None and length != wanted:
            raise self._verifier.mismatch(f"{length} bytes instead of {wanted}")


def _wait(error: RegistryError, wait: float) -> float:
    """Returns the seconds to wait. Raises a `Throttled` with a long pause, as the upload's connection stays open."""
    if not isinstance(error, Throttled) or error.retry_after is None:
        return wait
    if error.retry_after > _LONGEST_RETRY_AFTER:
        raise error
    return max(wait, error.retry_after)
