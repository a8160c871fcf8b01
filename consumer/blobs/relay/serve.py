"""The relay: sends a blob on to agents of other regions, while it still comes in or from the registry that has it.

    GET /v1/relay/{place}/{repository}/blobs/{digest}     Authorization: Bearer SECRET, Regmesh-Region: REGION

200 or 206 with the bytes; 202 when it is expected and has not begun; 404 when it is neither there nor expected; 409
when we wait for the one who asks; 416 when it has gone on too far to be followed. Who asks must know the mesh's relay
secret, and be where a replica of the same instance is.
"""

import asyncio
import hmac
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import structlog
from aiohttp import web

from consumer.blobs.relay.client import REGION_HEADER
from consumer.blobs.relay.incoming import Arrival, Incoming
from consumer.blobs.relay.tee import Tee
from consumer.places import Places
from consumer.task import BlobKey
from mesh.clock import Clock
from mesh.errors import RegmeshError, clean
from mesh.metrics import Metrics
from mesh.registry.port import Descriptor
from mesh.rules import boundary
from mesh.rules.state import MeshState
from schemas.completions import Side
from schemas.names import Digest, MediaType, PlaceName, Region, Repository
from schemas.topology import Place

LOG = structlog.get_logger()

PATH = "/v1/relay/{place}/{repository:.+}/blobs/{digest}"
_WAIT_SECONDS = 0.5  # for what is not there yet, before it is said so
_LOOK_SECONDS = 0.01
_STALL_SECONDS = 60.0  # without a byte taken: what is sent to nobody is not kept in memory
_BLOB = MediaType("application/octet-stream")
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)

_Chunks = AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class _Asked:
    """One question. `by` is the region that asks."""

    by: Region
    place: PlaceName
    repository: Repository
    blob: Descriptor
    offset: int

    @property
    def blob_key(self) -> BlobKey:
        return (self.place, self.blob.digest)


class Relay:
    """Of one region's agent."""

    def __init__(
        self,
        *,
        region: Region,
        incoming: Incoming,
        places: Places,
        state: MeshState,
        secret: Callable[[], str | None],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._region, self._incoming, self._places, self._state = region, incoming, places, state
        self._secret, self._clock, self._metrics = secret, clock, metrics

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if not self._knows_the_secret(request):
            return _refuse(401, "the relay secret is missing or wrong")
        try:
            asked = _parse(request)
        except ValueError as error:
            return _refuse(400, str(error))
        place = self._state.place(asked.place)
        if place is None or place.region != self._region or not self._may_read(asked.by, place):
            return _refuse(403, f"{asked.place} is not for region {asked.by}")
        try:
            return await self._answer(request, asked, place)
        except RegmeshError as error:  # the registry here, or our credentials for it
            return _refuse(502, str(error))

    def _knows_the_secret(self, request: web.Request) -> bool:
        secret = self._secret()
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return bool(secret) and hmac.compare_digest(given.encode(errors="replace"), str(secret).encode())

    def _may_read(self, asking: Region, place: Place) -> bool:
        is_replicated_there = any(
            it.instance == place.instance and it.region == asking for it in self._state.replicas()
        )
        return is_replicated_there and boundary.crossing(self._state, place.region, asking) is None

    async def _answer(self, request: web.Request, asked: _Asked, place: Place) -> web.StreamResponse:
        coming = self._incoming.get(asked.blob_key)
        if (
            coming is None or coming.tee is None
        ):  # expected only: a task may not have looked yet whether it is there
            registry = self._places.registry(place, Side.SOURCE)
            if await registry.blob_size(asked.repository, asked.blob.digest) == asked.blob.size:
                reading = registry.read_blob(asked.repository, asked.blob, offset=asked.offset)
                return await self._send(request, asked, reading)
        arrival = await self._arrival(asked)
        if arrival is None:
            return _refuse(404, "it is neither here nor expected")
        if arrival.waits_for == asked.by:
            return _refuse(409, f"{self._region} waits for {asked.by} to send it")
        if arrival.tee is None:
            return _refuse(202, "it is expected")
        if arrival.tee.size != asked.blob.size or not arrival.tee.holds(asked.offset):
            return _refuse(416, "it cannot be followed from there")
        return await self._send(request, asked, _following(arrival.tee, asked.offset))

    async def _arrival(self, asked: _Asked) -> Arrival | None:
        """As soon as it comes in; the one who asks may be a moment ahead of us."""
        deadline = self._clock.monotonic() + _WAIT_SECONDS
        while True:
            arrival = self._incoming.get(asked.blob_key)
            decided = arrival is not None and (arrival.tee is not None or arrival.waits_for == asked.by)
            if decided or self._clock.monotonic() >= deadline:
                return arrival
            await self._clock.sleep(_LOOK_SECONDS)

    async def _send(
        self, request: web.Request, asked: _Asked, opening: AbstractAsyncContextManager[_Chunks]
    ) -> web.StreamResponse:
        headers, size = {"Content-Type": str(_BLOB)}, asked.blob.size
        if asked.offset:
            headers["Content-Range"] = f"bytes {asked.offset}-{size - 1}/{size}"
        sent = self._metrics.relayed_bytes.labels(self._region, asked.by)
        async with opening as chunks:
            response = web.StreamResponse(status=206 if asked.offset else 200, headers=headers)
            response.content_length = size - asked.offset
            await response.prepare(request)
            try:
                async for chunk in chunks:
                    async with asyncio.timeout(_STALL_SECONDS):
                        await response.write(chunk)
                    sent.inc(len(chunk))
                await response.write_eof()
            except (RegmeshError, ConnectionError, TimeoutError) as error:
                LOG.warning("a relay broke off", action="relay_broken", to=asked.by, error=clean(str(error)))
                _cut(request)
        return response


class Relays:
    """Those of a process, by region: one listener serves them all."""

    def __init__(self) -> None:
        self._relays: dict[str, Relay] = {}

    def add(self, region: Region, relay: Relay) -> None:
        self._relays[region] = relay

    def routes(self, app: web.Application) -> None:
        app.router.add_get(PATH, self.handle)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """By the region of the place that is asked for."""
        relay = self._relays.get(request.match_info["place"].partition("@")[2])
        return (
            await relay.handle(request)
            if relay is not None
            else _refuse(404, "no agent of that region is here")
        )


@asynccontextmanager
async def _following(tee: Tee, offset: int) -> AsyncIterator[_Chunks]:
    yield tee.follow(offset)


def _cut(request: web.Request) -> None:
    """So that nobody takes for whole what was not."""
    if request.transport is not None:
        request.transport.abort()


def _parse(request: web.Request) -> _Asked:
    """`ValueError` for what is no question."""
    size, named = request.query.get("size", ""), request.match_info
    if not _NUMBER.fullmatch(size):
        raise ValueError("`size` must be the blob's, in bytes")
    asked = _Asked(
        by=Region(request.headers.get(REGION_HEADER, "")), place=PlaceName(named["place"]),
        repository=Repository(named["repository"]), blob=Descriptor(_BLOB, Digest(named["digest"]), int(size)),
        offset=_offset(request.headers.get("Range")),
    )  # fmt: skip
    if asked.offset and asked.offset >= asked.blob.size:
        raise ValueError("the Range begins behind the blob's end")
    return asked


def _offset(header: str | None) -> int:
    if header is None:
        return 0
    start = header.removeprefix("bytes=").removesuffix("-")
    if not _NUMBER.fullmatch(start):
        raise ValueError("the Range must be bytes=N-")
    return int(start)


def _refuse(status: int, message: str) -> web.Response:
    return web.json_response({"error": clean(message)}, status=status)
