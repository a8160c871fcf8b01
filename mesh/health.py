"""The HTTP routes for monitoring: liveness, readiness and metrics."""

from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from mesh.metrics import Metrics


def add_routes(
    app: web.Application, metrics: Metrics | None, readiness: Callable[[], list[str]],
    notes: Callable[[], list[str]] = list,
) -> None:  # fmt: skip
    """Adds `/healthz` and `/readyz`, and with `metrics` also `/metrics`.

    Args:
        app: The application.
        metrics: The metrics; None serves none.
        readiness: Returns why the process is not ready, or an empty list.
        notes: Returns what an operator should know of a process that is ready.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_: web.Request) -> web.Response:
        reasons = readiness()
        answer = {"ready": not reasons, "reasons": reasons, "notes": notes()}
        return web.json_response(answer, status=503 if reasons else 200)

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
