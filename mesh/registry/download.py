"""GET of a blob as a verified stream that survives broken connections."""

import contextlib
from collections.abc import Iterator

from aiohttp import ClientResponse

from mesh import retry
from mesh.errors import RegistryError, Rejected, ServerFault, Throttled, Unreachable
from mesh.registry import auth, failures
from mesh.registry.port import Descriptor
from mesh.registry.transport import STREAM, Call, Channel
from mesh.registry.verify import SizeVerifier, Verifier
from schemas.names import Repository

_TRIES = 8  # about 15 s of waiting in all: a registry that restarts is back by then
_PROGRESS = 1024 * 1024  # bytes since the last cut that make the next one count as the first
_LONGEST_WAIT = 30.0  # seconds a Retry-After is waited for here; the caller waits for longer ones


class BlobReader:
    """An async iterator of chunks (768 KiB at most). To be opened once, and closed.

    Not a generator: an upload reads it from a task of its own, and a generator can't be closed while it runs there.
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
        self._skip = 0  # bytes of the present answer that we have already
        self._delays = self._fresh_delays()
        self._cut_at = 0
        self._ended = False

    async def open(self) -> None:
        """Raises what the registry says to the first request: `NotFound`, `Denied`, ..."""
        self._cut_at = self._verifier.received
        self._response = await self._get(self._verifier.received)

    def close(self) -> None:
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
        """Before the last chunk is handed over: nothing may follow it, and all must be what the digest says."""
        self._verifier.check()
        with contextlib.suppress(Unreachable):  # cut after the last byte: it is all here, and it is right
            self._verifier.add(await self._read())
        self.close()

    async def _receive(self) -> bytes:
        """The next bytes that we have not had yet; empty at the end of the body."""
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
        """Piece by piece as they came: `readany` would join, and so copy, what waits in the buffer."""
        assert self._response is not None
        with failures.translated(self._channel.transport.name, self._channel.side):
            while True:
                chunk, is_boundary = await self._response.content.readchunk()
                if chunk or not is_boundary:  # an empty one at a boundary of chunked encoding is not the end
                    return chunk

    async def _resume(self, error: RegistryError) -> None:
        """A new answer from where the last one broke; `error`, or what came after it, when the tries are used up."""
        if self._verifier.received - self._cut_at >= _PROGRESS:
            self._delays = self._fresh_delays()
        self._cut_at = self._verifier.received
        if self._response is not None:
            self._response.close()
        for delay in self._delays:
            await self._channel.transport.clock.sleep(_wait(error, delay))
            if self._ended:  # closed meanwhile: an upload reads in a task of its own
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

    def _fresh_delays(self) -> Iterator[float]:
        return retry.delays(first=0.2, longest=5, tries=_TRIES, random=self._channel.transport.random)

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
        """Not a byte is read of an answer whose length is wrong; one without a Range is read again from its start."""
        partial = response.status == 206
        self._skip = 0 if partial else offset
        if partial and not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            raise Rejected("the registry answered with another range than asked", side=self._channel.side)
        length = response.content_length
        wanted = self._blob.size - (offset if partial else 0)
        if length is not None and length != wanted:
            raise self._verifier.mismatch(f"{length} bytes instead of {wanted}")


def _wait(error: RegistryError, delay: float) -> float:
    """Seconds. A registry that asks for a long pause is not waited for while a connection elsewhere stays open."""
    if not isinstance(error, Throttled) or error.retry_after is None:
        return delay
    if error.retry_after > _LONGEST_WAIT:
        raise error
    return max(delay, error.retry_after)
