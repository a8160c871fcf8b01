"""The places that this gateway forwards requests to: a client for each, and whether it answered when last probed.

A request that fails marks its place as down at once, so that the next request goes to the next-nearest; a probe every
few seconds marks it as up again.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from aiohttp import ClientResponse
from yarl import URL

from mesh.clock import Clock
from mesh.concurrency import close_all
from mesh.errors import RegistryError, Unreachable
from mesh.gateway.nearest import ProbeResult
from mesh.metrics import Metrics
from mesh.registry.challenges import Challenge
from mesh.registry.upstream import UpstreamRequest
from schemas.completions import Side
from schemas.names import PlaceName
from schemas.topology import Place

LOG = structlog.get_logger()

_SMOOTHING = 0.3  # the weight of the newest round trip in the average
_UNPROBED = ProbeResult()


class Upstream(Protocol):
    """The upstream client of one place, which sends a client's credentials and none of ours.

    Every method but `close` raises `RegistryError`.
    """

    name: str
    base: URL

    async def send(self, request: UpstreamRequest) -> ClientResponse:
        """Returns the response with any status, its body still to be read."""

    async def ping(self) -> int:
        """Returns the status of `GET /v2/` without credentials."""

    async def token(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None
    ) -> ClientResponse:
        """Returns the response of the place's token server."""

    def realm(self, challenge: Challenge) -> URL:
        """Returns the URL of the token server that a challenge names, if credentials may be sent there."""

    async def close(self) -> None:
        """Closes all connections."""


OpenUpstream = Callable[[Place], Upstream]


@dataclass(slots=True)
class Upstreams:
    """The upstream clients of all places, opened when first used."""

    open_upstream: OpenUpstream
    clock: Clock
    metrics: Metrics
    _clients: dict[Place, Upstream] = field(default_factory=dict)
    _probed: dict[PlaceName, ProbeResult] = field(default_factory=dict)
    _closed: bool = False

    def client(self, place: Place) -> Upstream:
        """Returns the client of a place, kept open until `close`. A place whose URL changes gets another one.

        Raises:
            Unreachable: The gateway is stopping.
        """
        if self._closed:
            raise Unreachable("this gateway is stopping", side=Side.SOURCE)
        if place not in self._clients:
            self._clients[place] = self.open_upstream(place)
        return self._clients[place]

    def probe_result(self, name: PlaceName) -> ProbeResult:
        """Returns what the last probe or request found."""
        return self._probed.get(name, _UNPROBED)

    def mark_down(self, place: Place, reason: str) -> None:
        """Marks a place as down until a probe finds it up."""
        round_trip = self.probe_result(place.name).round_trip_ms
        self._update(place, ProbeResult(up=False, round_trip_ms=round_trip), reason)

    async def probe(self, places: list[Place]) -> None:
        """Pings all given places concurrently, and closes and forgets all others."""
        await asyncio.gather(*(self._probe(place) for place in places))
        for place in self._clients.keys() - set(places):
            await self._clients.pop(place).close()
        for name in self._probed.keys() - {place.name for place in places}:
            del self._probed[name]
            self.metrics.gateway_place_up.remove(name)

    async def close(self) -> None:
        """Closes all clients, and opens none from now on."""
        self._closed = True
        clients = list(self._clients.values())
        self._clients.clear()
        await close_all(*(client.close for client in clients))

    async def _probe(self, place: Place) -> None:
        started = self.clock.monotonic()
        try:
            status = await self.client(place).ping()
        except RegistryError as error:
            self.mark_down(place, str(error))
        else:
            if status >= 500:
                self.mark_down(place, f"{status} to GET /v2/")
            else:
                self._mark_up(place, (self.clock.monotonic() - started) * 1000)

    def _mark_up(self, place: Place, took_ms: float) -> None:
        before = self.probe_result(place.name).round_trip_ms
        average = took_ms if before is None else before + _SMOOTHING * (took_ms - before)
        self._update(place, ProbeResult(up=True, round_trip_ms=average), "it answers")

    def _update(self, place: Place, found: ProbeResult, reason: str) -> None:
        if self.probe_result(place.name).up != found.up:
            log = LOG.info if found.up else LOG.warning
            log("a place is up again" if found.up else "a place is down", action="gateway_place", place=place.name,
                up=found.up, reason=reason)  # fmt: skip
        self._probed[place.name] = found
        self.metrics.gateway_place_up.labels(place.name).set(1 if found.up else 0)
