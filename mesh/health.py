"""The HTTP routes for monitoring: liveness, readiness and metrics."""

from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from mesh.metrics import Metrics


def add_routes(app: web.Application, metrics: Metrics | None, readiness: Callable[[], list[str]]) -> None:
    """Adds `/healthz` and `/readyz`, and with `metrics` also `/metrics`.

    `readiness` returns why the process is not ready, or an empty list.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_: web.Request) -> web.Response:
        reasons = readiness()
        return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    if metrics is not None:
        app.router.add_get("/metrics", _exposition(metrics))


def _exposition(metrics: Metrics) -> Handler:
    async def exposition(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    return exposition
