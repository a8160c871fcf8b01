"""A role on the data of `scale_data`, in a process of its own.

`python -m tests.bench.scale_process ROLE REGION DATA PORT`; ROLE is `control` or `agent`. `GET /bench/slowest` answers
the slowest turn of its event loop since the last such request, in milliseconds.
"""

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry

from mesh.clock import SystemClock
from mesh.metrics import Metrics
from mesh.node import roles, serve
from mesh.node.node import open_node
from schemas.names import Region

_EVERY = 0.005  # seconds between two looks at the loop


class SlowestTurn:
    """Sleeps again and again, and remembers by how much the loop was late."""

    def __init__(self) -> None:
        self._clock, self._slowest = SystemClock(), 0.0

    async def run(self) -> None:
        """Watches until cancelled."""
        while True:
            due = self._clock.monotonic() + _EVERY
            await asyncio.sleep(_EVERY)
            self._slowest = max(self._slowest, self._clock.monotonic() - due)

    def add_routes(self, app: web.Application) -> None:
        """Adds the route."""

        async def slowest(_: web.Request) -> web.Response:
            found, self._slowest = self._slowest, 0.0
            return web.json_response({"milliseconds": found * 1000})

        app.router.add_get("/bench/slowest", slowest)


async def main(role: str, region: Region, data: Path, port: int) -> None:
    """Runs the role until the process is killed."""
    turns = SlowestTurn()
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_node(None, data, metrics=Metrics(CollectorRegistry())))
        listen = f"127.0.0.1:{port}"
        if role == "control":
            control = roles.control(node, None)
            await stack.enter_async_context(serve.listening(listen, node, [turns.add_routes, control.routes]))
            running = control.run()
        else:
            await stack.enter_async_context(serve.listening(listen, node, [turns.add_routes]))
            running = roles.agent(node, region).run()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(turns.run())
            tasks.create_task(running)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Region(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])))
