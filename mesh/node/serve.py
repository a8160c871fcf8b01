"""The HTTP server of a process: one listener for all its roles, with health, readiness and metrics."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
from aiohttp import web

from mesh import health
from mesh.errors import RegmeshError
from mesh.node.addresses import parse_address
from mesh.node.node import Node

LOG = structlog.get_logger()

_MAX_BODY = 16 * 1024 * 1024  # bytes; each route has its own, smaller limit


class PortTaken(RegmeshError):
    """The address cannot be listened on."""

    code = "port_taken"


@asynccontextmanager
async def listening(
    listen: str, node: Node, routes: list[Callable[[web.Application], None]], *, option: str = "--listen"
) -> AsyncIterator[str]:
    """Serves until the block ends; yields the URL, with the real port for port 0.

    Raises:
        InvalidInput: `listen` is not HOST:PORT.
        PortTaken: The address cannot be listened on; the error names the `option` that sets it.
    """
    host, port = parse_address(listen)
    app = web.Application(client_max_size=_MAX_BODY)
    health.add_routes(app, node.metrics, node.not_ready)
    for add in routes:
        add(app)
    runner = web.AppRunner(
        app, access_log=None, handle_signals=False, shutdown_timeout=node.settings.node.http_drain
    )
    await runner.setup()
    try:
        await _bind(runner, host, port, option)
        url = f"http://{'[' + host + ']' if ':' in host else host}:{runner.addresses[0][1]}"
        LOG.info("listening", action="listen", url=url)
        yield url
    finally:
        await runner.cleanup()


async def _bind(runner: web.AppRunner, host: str, port: int, option: str) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        reason = (error.strerror or str(error)).rpartition("): ")[2]  # asyncio repeats the address
        raise PortTaken(f"cannot listen on {host}:{port}: {reason}; choose another with {option}") from error
