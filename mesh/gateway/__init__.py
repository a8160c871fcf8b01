"""The gateway: clients of a region pull under one name, from the nearest healthy place that holds what they ask for.

    GET /v2/... -> asked (parsed) -> nearest (who may serve, in which order) -> search (asks, by verdict) -> deliver
                                              a miss here -> misses ==> mesh.commands -> producer, agent
    401 of a place -> headers (challenge rewritten) -> client -> GET /token/{place} -> tokens -> the place's realm

It keeps nothing and decides nothing about rights: the client's Authorization goes to the place that serves, and that
place decides. `asked`, `nearest`, `verdict`, `headers`, `ranges`, `hosts_toml` and `zone` decide without any I/O.
"""

from aiohttp import web

from mesh.clock import Clock
from mesh.concurrency import close_all
from mesh.gateway.misses import Misses
from mesh.gateway.nearest import Nearest
from mesh.gateway.places import OpenUpstream, Places
from mesh.gateway.server import Front, GatewayOptions
from mesh.gateway.tokens import Tokens
from mesh.log.port import Log
from mesh.log.table import Table
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from schemas.names import Region

__all__ = ["Gateway", "GatewayOptions"]


class Gateway:
    """The role for one region. Whoever builds it follows `mesh.state` with `table` into `state`."""

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
        look_every: float,
    ) -> None:
        self._nearest, self._clock, self._every = Nearest(state, region), clock, look_every
        self._places = Places(open_upstream, clock, metrics)
        self._misses = Misses(region, log, state, clock, metrics)
        self._front = Front(
            region=region, nearest=self._nearest, places=self._places, tokens=Tokens(self._places),
            misses=self._misses, metrics=metrics, options=options, ready=lambda: table.ready,
        )  # fmt: skip

    def routes(self, app: web.Application) -> None:
        """Add `/v2/` and `/token/`."""
        self._front.routes(app)

    async def run(self) -> None:
        """Look at the places again and again, until cancelled. Once: then the ways to them are closed."""
        try:
            while True:
                await self._places.look(self._nearest.places())
                await self._clock.sleep(self._every)
        finally:
            await close_all(self._misses.close, self._places.close)
