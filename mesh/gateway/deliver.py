"""A place's answer on its way to the client: as it is, piece by piece, memory bounded by one piece.

A blob that breaks off in the middle is gone on with by another place, from the byte where it broke: its digest says
that it is the same. What cannot be gone on with ends in a broken connection, never as if it were whole.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from aiohttp import web

from mesh.errors import RegistryError
from mesh.gateway import headers
from mesh.gateway.byte_ranges import ByteRange, byte_range_of, to_skip
from mesh.gateway.places import Places
from mesh.gateway.search import Found
from mesh.metrics import Metrics
from mesh.registry import failures
from schemas.completions import Side

LOG = structlog.get_logger()

_MOST_RESUMES = 5
_STALLED_SECONDS = 60.0  # for which a client takes nothing of what waits for it
# Asks the places for a stretch of the blob; who has it, or None.
AskForRest = Callable[[ByteRange], Awaitable[Found | None]]


@dataclass(slots=True)
class Delivery:
    """`send` once. It closes the place's answer, whatever happens."""

    request: web.Request
    found: Found
    ask_for_rest: AskForRest | None  # None = what breaks off is not gone on with
    places: Places
    metrics: Metrics
    left: ByteRange | None = None
    skip: int = 0
    resumes: int = 0

    async def send(self) -> web.StreamResponse:
        response = self.found.response
        answer = web.StreamResponse(
            status=response.status, headers=headers.coming(response.status, response.headers, response.url)
        )
        self.left = byte_range_of(response.status, response.headers)
        try:
            await answer.prepare(self.request)
            if self.request.method == "HEAD" or await self._send_body(answer):
                await _taken(answer.write_eof())
            else:
                self._cut()
        except ConnectionError:
            LOG.debug("a client went away", action="gateway_client_gone")  # a place's errors are ours already
        except TimeoutError:
            LOG.info("a client reads no more", action="gateway_client_stalled", place=self.found.place.name)
            self._cut()
        except BaseException:
            self._cut()  # no other answer may follow a part of this one
            raise
        finally:
            self.found.response.close()
        return answer

    def _cut(self) -> None:
        if self.request.transport is not None:
            self.request.transport.abort()

    async def _send_body(self, answer: web.StreamResponse) -> bool:
        """False when it broke off for good."""
        if self.found.body is not None:
            await self._write(answer, self.found.body)
            return True
        while self.left is None or not self.left.is_over:
            try:
                chunk = await self._read()
            except RegistryError as error:
                if not await self._goes_on(error):
                    return False
                continue
            if not chunk:
                return self.left is None or self.left.last is None
            if wanted := self._wanted(chunk):
                await self._write(answer, wanted)
        return True

    def _wanted(self, chunk: bytes) -> bytes:
        """Without what the client has already, and without what it did not ask for."""
        skipped = min(self.skip, len(chunk))
        self.skip -= skipped
        last = self.left.last if self.left is not None else None
        until = None if self.left is None or last is None else skipped + last - self.left.first + 1
        return chunk[skipped:until]

    async def _write(self, answer: web.StreamResponse, chunk: bytes) -> None:
        self.metrics.gateway_bytes.labels(self.found.place.name).inc(len(chunk))
        if self.left is not None:
            self.left = self.left.after(len(chunk))
        await _taken(answer.write(chunk))

    async def _read(self) -> bytes:
        with failures.translated(self.found.place.name, Side.SOURCE):
            return await self.found.response.content.readany()

    async def _goes_on(self, error: RegistryError) -> bool:
        """Whether another place (or this one, when it is back) has the rest."""
        broken = self.found
        broken.response.close()
        self.places.failed(broken.place, str(error))
        while self.ask_for_rest is not None and self.left is not None and self.resumes < _MOST_RESUMES:
            self.resumes += 1
            found = await self.ask_for_rest(self.left)
            if found is None:
                break
            skip = to_skip(self.left, found.response.status, found.response.headers)
            if skip is None:
                found.response.close()
                continue
            self.found, self.skip = found, skip
            self.metrics.gateway_resumed.labels(broken.place.name).inc()
            LOG.warning("a blob goes on from elsewhere", action="gateway_resumed", broken=broken.place.name,
                        place=found.place.name, reason=str(error))  # fmt: skip
            return True
        LOG.warning("a pull broke off", action="gateway_broken", place=broken.place.name, reason=str(error))
        return False


async def _taken(writing: Awaitable[None]) -> None:
    """`TimeoutError` when the client takes nothing for too long: its place's connection is held as long as it is."""
    async with asyncio.timeout(_STALLED_SECONDS):
        await writing
