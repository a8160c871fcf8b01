"""Sends a place's response to the client, unchanged, with no more than one chunk of it in memory.

A blob that breaks off in the middle is resumed from another place at the byte where it broke: its digest guarantees
that it is the same. What cannot be resumed ends in a broken connection, so that it never looks complete.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from aiohttp import web

from mesh.errors import RegistryError
from mesh.gateway import headers
from mesh.gateway.byte_ranges import ByteRange, byte_range_of, to_skip
from mesh.gateway.search import Served
from mesh.gateway.settings import GatewaySettings
from mesh.gateway.upstreams import Upstreams
from mesh.metrics import Metrics
from mesh.registry import failures
from schemas.completions import Side

LOG = structlog.get_logger()

# Requests a range of the blob from the places; returns the response of one that has it, or None.
RequestRest = Callable[[ByteRange], Awaitable[Served | None]]


@dataclass(slots=True)
class ResponseDelivery:
    """The delivery of one response. `send` may be called once; it closes the place's response in any case.

    Args:
        request_rest: None = the response is not resumed when it breaks off.
    """

    request: web.Request
    served: Served
    request_rest: RequestRest | None
    upstreams: Upstreams
    metrics: Metrics
    settings: GatewaySettings
    left: ByteRange | None = None
    skip: int = 0
    resumes: int = 0

    async def send(self) -> web.StreamResponse:
        """Sends the response to the client, as far as the client reads it."""
        response = self.served.response
        answer = web.StreamResponse(
            status=response.status,
            headers=headers.for_client(response.status, response.headers, response.url),
        )
        self.left = byte_range_of(response.status, response.headers)
        try:
            await answer.prepare(self.request)
            if self.request.method == "HEAD" or await self._send_body(answer):
                await self._before_stall(answer.write_eof())
            else:
                self._abort()
        except ConnectionError:  # the client's: those of a place are RegistryErrors
            LOG.debug("a client closed its connection", action="gateway_client_disconnected")
        except TimeoutError:
            LOG.info(
                "a client stopped reading", action="gateway_client_stalled", place=self.served.place.name
            )
            self._abort()
        except BaseException:
            self._abort()  # no other response may follow a part of this one
            raise
        finally:
            self.served.response.close()
        return answer

    def _abort(self) -> None:
        if self.request.transport is not None:
            self.request.transport.abort()

    async def _send_body(self, answer: web.StreamResponse) -> bool:
        """Sends the body and returns whether it is complete."""
        if self.served.body is not None:
            await self._write(answer, self.served.body)
            return True
        while self.left is None or not self.left.is_empty:
            try:
                chunk = await self._read()
            except RegistryError as error:
                if not await self._resume(error):
                    return False
                continue
            if not chunk:
                return self.left is None or self.left.last is None
            if wanted := self._wanted(chunk):
                await self._write(answer, wanted)
        return True

    def _wanted(self, chunk: bytes) -> bytes:
        """Returns the chunk without bytes that the client has already or did not ask for."""
        skipped = min(self.skip, len(chunk))
        self.skip -= skipped
        last = self.left.last if self.left is not None else None
        until = None if self.left is None or last is None else skipped + last - self.left.first + 1
        return chunk[skipped:until]

    async def _write(self, answer: web.StreamResponse, chunk: bytes) -> None:
        self.metrics.gateway_bytes.labels(self.served.place.name).inc(len(chunk))
        if self.left is not None:
            self.left = self.left.after(len(chunk))
        await self._before_stall(answer.write(chunk))

    async def _read(self) -> bytes:
        with failures.translated(self.served.place.name, Side.SOURCE):
            return await self.served.response.content.readany()

    async def _resume(self, error: RegistryError) -> bool:
        """Continues with another place, or with this one when it is up again; returns whether that worked."""
        broken = self.served
        broken.response.close()
        self.upstreams.mark_down(broken.place, str(error))
        while self.request_rest is not None and self.left is not None and self._may_resume():
            self.resumes += 1
            found = await self.request_rest(self.left)
            if found is None:
                break
            skip = to_skip(self.left, found.response.status, found.response.headers)
            if skip is None:
                found.response.close()
                continue
            self.served, self.skip = found, skip
            self.metrics.gateway_resumed.labels(broken.place.name).inc()
            LOG.warning("a blob is resumed from another place", action="gateway_resumed", broken=broken.place.name,
                        place=found.place.name, reason=str(error))  # fmt: skip
            return True
        LOG.warning("a pull broke off", action="gateway_broken", place=broken.place.name, reason=str(error))
        return False

    def _may_resume(self) -> bool:
        return self.resumes < self.settings.blob_resumes

    async def _before_stall(self, writing: Awaitable[None]) -> None:
        """Raises `TimeoutError` when the client reads nothing for too long, while it holds a place's connection."""
        async with asyncio.timeout(self.settings.client_stall_timeout):
            await writing
