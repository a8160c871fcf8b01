"""The HTTP server of a process: one listener for all its roles, with health, readiness and metrics."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import structlog
from aiohttp import web

from mesh import health
from mesh.errors import RegmeshError
from mesh.node import file_descriptors
from mesh.node.activity import Limits
from mesh.node.addresses import parse_address
from mesh.node.connections import Connections, GuardedSite
from mesh.node.lifecycle import background
from mesh.node.node import Node

LOG = structlog.get_logger()

_MAX_BODY = 16 * 1024 * 1024  # bytes; each route has its own, smaller limit


class PortTaken(RegmeshError):
    """The address cannot be listened on."""

    code = "port_taken"


@asynccontextmanager
async def listening(
    listen: str,
    node: Node,
    routes: Sequence[Callable[[web.Application], None]],
    *,
    option: str = "--listen",
    listeners: int = 1,
    metrics: bool = True,
    not_ready: Callable[[], list[str]] | None = None,
    notes: Callable[[], list[str]] = list,
) -> AsyncIterator[str]:
    """Serves until the block ends; yields the URL, with the real port for port 0.

    Clients that make no progress are disconnected, and their number is limited (`mesh.node.connections`).

    Args:
        listen: HOST:PORT.
        node: The ports of the process.
        routes: Each adds routes to the application.
        option: The option that sets the address.
        listeners: How many listeners the process has; they share the file descriptors that are for clients.
        metrics: Serve `/metrics` too, which names what is declared.
        not_ready: Returns why the process is not ready; by default what the node says.
        notes: Returns what `/readyz` says besides.

    Raises:
        InvalidInput: `listen` is not HOST:PORT.
        PortTaken: The address cannot be listened on; the error names the `option` that sets it.
    """
    host, port = parse_address(listen)
    connections = Connections(listen, _limits(node, listeners), node.clock, node.metrics)
    app = web.Application(client_max_size=_MAX_BODY, middlewares=[connections.middleware])
    health.add_routes(app, node.metrics if metrics else None, not_ready or node.not_ready, notes)
    for add in routes:
        add(app)
    runner = web.AppRunner(
        app, access_log=None, handle_signals=False, shutdown_timeout=node.settings.node.http_drain
    )
    await runner.setup()
    try:
        await _bind(GuardedSite(runner, host, port, connections), host, port, option)
        url = f"http://{'[' + host + ']' if ':' in host else host}:{runner.addresses[0][1]}"
        LOG.info("listening", action="listen", url=url)
        async with background(connections.run()):
            yield url
    finally:
        await runner.cleanup()


def _limits(node: Node, listeners: int) -> Limits:
    settings = node.settings.node
    return Limits(
        file_descriptors.most_connections(
            settings.http_connections, file_descriptors.open_files(), listeners
        ),
        headers=settings.http_headers_timeout,
        body=settings.http_body_progress,
        send=settings.http_send_progress,
    )


async def _bind(site: GuardedSite, host: str, port: int, option: str) -> None:
    try:
        await site.start()
    except OSError as error:
        reason = (error.strerror or str(error)).rpartition("): ")[2]  # asyncio repeats the address
        raise PortTaken(f"cannot listen on {host}:{port}: {reason}; choose another with {option}") from error
