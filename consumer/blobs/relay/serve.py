"""The relay's server: sends a blob to agents of other regions, from the registry or while it is still received.

    GET /v1/relay/{place}/{repository}/blobs/{digest}     signed as `signing` says, Regmesh-Region: REGION

It answers 200 or 206 with the bytes; 202 when the blob is expected, also by a client that is late for its first bytes
and can have it whole soon; 404 when it is neither there nor expected; 409 when this agent waits for the requesting
region; 416 when the requested bytes are no longer in memory. The signature has to be that of the client's region, and
the region must have a replica of the same instance.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from weakref import WeakSet

import structlog
from aiohttp import web

from consumer.blobs.relay import signing
from consumer.blobs.relay.access import RelayAccess
from consumer.blobs.relay.incoming import Arrival, Incoming
from consumer.blobs.relay.signing import REGION_HEADER, RelayRequest
from consumer.blobs.relay.tee import Tee
from consumer.ports import AgentPorts
from consumer.task import BlobKey
from mesh.errors import RegmeshError, clean
from mesh.registry.port import Descriptor
from mesh.rules import boundary
from schemas.completions import Side
from schemas.names import Digest, MediaType, PlaceName, Region, Repository
from schemas.topology import Place

LOG = structlog.get_logger()

PATH = "/v1/relay/{place}/{repository:.+}/blobs/{digest}"
_WAIT_SECONDS = 0.5  # for a blob that is not there yet, before it is answered so
_POLL_SECONDS = 0.01
_STALL_SECONDS = 60.0  # in which a client must take a chunk, which would otherwise stay in memory
_BLOB = MediaType("application/octet-stream")
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)

_Chunks = AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class _Request:
    """One parsed request; `region` is the client's."""

    region: Region
    place: PlaceName
    repository: Repository
    blob: Descriptor
    offset: int

    def signed_for(self, url: str) -> RelayRequest:
        """Returns what the client has to sign for a relay that announces `url`."""
        blob = self.blob
        return RelayRequest(
            url, self.region, self.place, self.repository, blob.digest, blob.size, self.offset
        )

    @property
    def blob_key(self) -> BlobKey:
        return (self.place, self.blob.digest)


class Relay:
    """The relay of one region's agent."""

    def __init__(self, ports: AgentPorts, incoming: Incoming, access: RelayAccess) -> None:
        self._incoming, self._access, self._metrics = incoming, access, ports.metrics
        self._region, self._places, self._state, self._clock = (
            ports.region,
            ports.places,
            ports.state,
            ports.clock,
        )

    async def handle(self, http: web.Request) -> web.StreamResponse:
        """Answers one request as the module describes; 502 when the registry fails."""
        try:
            request = _parse(http)
        except ValueError as error:
            return _refuse(400, str(error))
        if (refused := self._why_refused(http, request)) is not None:
            return _refuse(401, refused)
        place = self._state.place(request.place)
        if place is None or place.region != self._region or not self._may_read(request.region, place):
            return _refuse(403, f"{request.place} is not for region {request.region}")
        try:
            return await self._answer(http, request, place)
        except RegmeshError as error:  # the registry here failed, or refused the credentials
            return _refuse(502, str(error))

    def _why_refused(self, http: web.Request, request: _Request) -> str | None:
        url, keys = self._access.url(), self._access.keys()
        if url is None:
            return "this agent announces no relay"
        return signing.why_refused(request.signed_for(url), keys, http.headers, self._clock.now())

    def _may_read(self, region: Region, place: Place) -> bool:
        is_replicated_there = any(
            it.instance == place.instance and it.region == region for it in self._state.replicas()
        )
        return is_replicated_there and boundary.crossing(self._state, place.region, region) is None

    async def _answer(self, http: web.Request, request: _Request, place: Place) -> web.StreamResponse:
        arrival = self._incoming.get(request.blob_key)
        if (
            arrival is None or arrival.tee is None
        ):  # an expected blob may be there, if no task has checked yet
            registry = self._places.registry(place, Side.SOURCE)
            if await registry.blob_size(request.repository, request.blob.digest) == request.blob.size:
                reading = registry.read_blob(request.repository, request.blob, offset=request.offset)
                return await self._send(http, request, reading)
        arrival = await self._wait_for_arrival(request)
        if arrival is None:
            return _refuse(404, "the blob is neither here nor expected")
        if arrival.waits_for == request.region:
            return _refuse(409, f"{self._region} waits for {request.region} to send the blob")
        if arrival.tee is None or _had_better_wait(request, arrival.tee):
            return _refuse(202, "the blob is expected")
        if arrival.tee.size != request.blob.size or not arrival.tee.can_follow(request.offset):
            return _refuse(416, "the blob cannot be followed from there")
        return await self._send(http, request, _following(arrival.tee, request.offset))

    async def _wait_for_arrival(self, request: _Request) -> Arrival | None:
        """Waits a moment until the blob is received, as the client may have received the event before this agent."""
        deadline = self._clock.monotonic() + _WAIT_SECONDS
        while True:
            arrival = self._incoming.get(request.blob_key)
            decided = arrival is not None and (arrival.tee is not None or arrival.waits_for == request.region)
            if decided or self._clock.monotonic() >= deadline:
                return arrival
            await self._clock.sleep(_POLL_SECONDS)

    async def _send(
        self, http: web.Request, request: _Request, opening: AbstractAsyncContextManager[_Chunks]
    ) -> web.StreamResponse:
        headers, size = {"Content-Type": str(_BLOB)}, request.blob.size
        if request.offset:
            headers["Content-Range"] = f"bytes {request.offset}-{size - 1}/{size}"
        sent = self._metrics.relayed_bytes.labels(self._region, request.region)
        async with opening as chunks:
            response = web.StreamResponse(status=206 if request.offset else 200, headers=headers)
            response.content_length = size - request.offset
            await response.prepare(http)
            try:
                async for chunk in chunks:
                    async with asyncio.timeout(_STALL_SECONDS):
                        await response.write(chunk)
                    sent.inc(len(chunk))
                await response.write_eof()
            except (RegmeshError, ConnectionError, TimeoutError) as error:
                LOG.warning(
                    "a relayed blob broke off",
                    action="relay_broken",
                    to=request.region,
                    error=clean(str(error)),
                )
                _abort(http)
        return response


class Relays:
    """The relays of one process by region, behind one listener."""

    def __init__(self) -> None:
        self._relays: dict[str, Relay] = {}
        self.tees: WeakSet[Tee] = WeakSet()  # of all agents of the process, whose memory is one

    def add(self, region: Region, relay: Relay) -> None:
        """Adds the relay of a region's agent."""
        self._relays[region] = relay

    def routes(self, app: web.Application) -> None:
        """Adds the relay's route to an application."""
        app.router.add_get(PATH, self.handle)

    async def handle(self, http: web.Request) -> web.StreamResponse:
        """Passes a request to the relay of its place's region."""
        relay = self._relays.get(http.match_info["place"].partition("@")[2])
        if relay is None:
            return _refuse(404, "no agent of that region is here")
        return await relay.handle(http)


@asynccontextmanager
async def _following(tee: Tee, offset: int) -> AsyncIterator[_Chunks]:
    yield tee.follow(offset)


def _had_better_wait(request: _Request, tee: Tee) -> bool:
    """Whether a client that is late for the first bytes waits until the registry here has the blob."""
    return not request.offset and tee.size == request.blob.size and tee.is_nearly_there()


def _abort(http: web.Request) -> None:
    """Aborts the connection, so that the client does not take an incomplete blob for a complete one."""
    if http.transport is not None:
        http.transport.abort()


def _parse(http: web.Request) -> _Request:
    """Raises `ValueError` for an invalid request."""
    size, named = http.query.get("size", ""), http.match_info
    if not _NUMBER.fullmatch(size):
        raise ValueError("`size` must be the blob's, in bytes")
    request = _Request(
        region=Region(http.headers.get(REGION_HEADER, "")), place=PlaceName(named["place"]),
        repository=Repository(named["repository"]), blob=Descriptor(_BLOB, Digest(named["digest"]), int(size)),
        offset=_offset(http.headers.get("Range")),
    )  # fmt: skip
    if request.offset and request.offset >= request.blob.size:
        raise ValueError("the Range starts after the end of the blob")
    return request


def _offset(header: str | None) -> int:
    if header is None:
        return 0
    start = header.removeprefix("bytes=").removesuffix("-")
    if not _NUMBER.fullmatch(start):
        raise ValueError("the Range must be bytes=N-")
    return int(start)


def _refuse(status: int, message: str) -> web.Response:
    return web.json_response({"error": clean(message)}, status=status)
