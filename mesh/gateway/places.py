"""The places that this gateway asks: a way to each, and whether it answered when it was last looked at.

A request that fails marks its place at once, so the next one goes to the next-nearest; a look every few seconds finds
it again.
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
from mesh.gateway.nearest import Seen
from mesh.metrics import Metrics
from mesh.registry.challenges import Challenge
from mesh.registry.upstream import UpstreamRequest
from schemas.completions import Side
from schemas.names import PlaceName
from schemas.topology import Place

LOG = structlog.get_logger()

_NEWEST = 0.3  # the share of the newest round trip in what is remembered


class Upstream(Protocol):
    """To one place, with a client's credentials and none of ours. Methods raise `RegistryError`."""

    name: str
    base: URL

    async def send(self, passed: UpstreamRequest) -> ClientResponse: ...
    async def ping(self) -> int: ...
    async def token(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None
    ) -> ClientResponse: ...
    def realm(self, challenge: Challenge) -> URL: ...
    async def close(self) -> None: ...


OpenUpstream = Callable[[Place], Upstream]


@dataclass(slots=True)
class Places:
    open_upstream: OpenUpstream
    clock: Clock
    metrics: Metrics
    _ways: dict[Place, Upstream] = field(default_factory=dict)
    _seen: dict[PlaceName, Seen] = field(default_factory=dict)
    _closed: bool = False

    def way(self, place: Place) -> Upstream:
        """Kept open until `close`, `Unreachable` after it; a place whose URL changes gets another one."""
        if self._closed:  # the last requests of a server that stops
            raise Unreachable("this gateway is stopping", side=Side.SOURCE)
        if place not in self._ways:
            self._ways[place] = self.open_upstream(place)
        return self._ways[place]

    def seen(self, name: PlaceName) -> Seen:
        return self._seen.get(name, _UNSEEN)

    def failed(self, place: Place, reason: str) -> None:
        self._note(place, Seen(up=False, round_trip_ms=self.seen(place.name).round_trip_ms), reason)

    async def look(self, places: list[Place]) -> None:
        """Ping all of them, side by side, and forget all others."""
        await asyncio.gather(*(self._look_at(place) for place in places))
        for place in self._ways.keys() - set(places):
            await self._ways.pop(place).close()
        for name in self._seen.keys() - {place.name for place in places}:
            del self._seen[name]
            self.metrics.gateway_place_up.remove(name)

    async def close(self) -> None:
        self._closed = True
        ways = list(self._ways.values())
        self._ways.clear()
        await close_all(*(way.close for way in ways))

    async def _look_at(self, place: Place) -> None:
        began = self.clock.monotonic()
        try:
            status = await self.way(place).ping()
        except RegistryError as error:
            self.failed(place, str(error))
        else:
            if status >= 500:
                self.failed(place, f"{status} to GET /v2/")
            else:
                self._answered(place, (self.clock.monotonic() - began) * 1000)

    def _answered(self, place: Place, took_ms: float) -> None:
        before = self.seen(place.name).round_trip_ms
        smooth = took_ms if before is None else before + _NEWEST * (took_ms - before)
        self._note(place, Seen(up=True, round_trip_ms=smooth), "it answers")

    def _note(self, place: Place, seen: Seen, reason: str) -> None:
        if self.seen(place.name).up != seen.up:
            log = LOG.info if seen.up else LOG.warning
            log("a place " + ("is back" if seen.up else "is left out"), action="gateway_place", place=place.name,
                up=seen.up, reason=reason)  # fmt: skip
        self._seen[place.name] = seen
        self.metrics.gateway_place_up.labels(place.name).set(1 if seen.up else 0)


_UNSEEN = Seen()
