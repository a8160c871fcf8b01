"""The gateway: clients of a region pull under one name, from the nearest healthy place that holds what they ask for.

    GET /v2/... -> request (parsed) -> nearest (who may serve, in which order) -> search (by outcome) -> deliver
                                              a miss here -> misses ==> mesh.commands -> producer, agent
    401 of a place -> headers (challenge rewritten) -> client -> GET /token/{place} -> tokens -> the place's realm

It stores nothing and decides nothing about rights: the client's Authorization goes to the places of the account that
owns the domain, and each decides. `request`, `nearest`, `outcome`, `headers`, `byte_ranges` and `client_config` decide
without any I/O.
"""

from aiohttp import web

from mesh.clock import Clock
from mesh.concurrency import close_all
from mesh.gateway.misses import Misses
from mesh.gateway.nearest import NearestPlaces
from mesh.gateway.search import NegativeCache
from mesh.gateway.server import GatewayServer
from mesh.gateway.settings import GatewayOptions, GatewaySettings
from mesh.gateway.tokens import Tokens
from mesh.gateway.upstreams import OpenUpstream, Upstreams
from mesh.log.port import Log
from mesh.log.table import Table
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from schemas.names import Region

__all__ = ["Gateway", "GatewayOptions", "GatewaySettings"]


class Gateway:
    """The gateway role of one region. The caller keeps `state` current with `table`, which follows `mesh.state`."""

    def __init__(
        self,
        *,
        region: Region,
        log: Log,
        state: MeshState,
        table: Table,
        open_upstream: OpenUpstream,
        clock: Clock,
        metrics: Metrics,
        options: GatewayOptions,
        settings: GatewaySettings,
    ) -> None:
        self._nearest, self._clock, self._settings = NearestPlaces(state, region), clock, settings
        self._upstreams = Upstreams(open_upstream, clock, metrics)
        self._misses = Misses(region, log, state, clock, metrics, settings)
        self._server = GatewayServer(
            region=region, nearest=self._nearest, upstreams=self._upstreams, tokens=Tokens(self._upstreams),
            misses=self._misses, metrics=metrics, options=options, settings=settings,
            negative_cache=NegativeCache(settings.negative_cache_size), ready=lambda: table.ready,
        )  # fmt: skip

    def routes(self, app: web.Application) -> None:
        """Adds `/v2/` and `/token/`."""
        self._server.routes(app)

    async def run(self) -> None:
        """Probes the places until cancelled, then closes the connections to them. May be called once."""
        try:
            while True:
                await self._upstreams.probe(self._nearest.places())
                await self._clock.sleep(self._settings.probe_interval)
        finally:
            await close_all(self._misses.close, self._upstreams.close)
