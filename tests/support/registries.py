"""Registries to test the client against: the real distribution, the built-in one, and a stub with set answers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from mesh.clock import SystemClock
from mesh.registry.builtin import BuiltinRegistry
from tests.support.parts import Distribution


@asynccontextmanager
async def distribution(folder: Path, *, htpasswd: str | None = None) -> AsyncIterator[str]:
    """Runs docker-registry, with Basic authentication when `htpasswd` has users, and yields its base URL."""
    registry = Distribution(folder)
    if htpasswd is not None:
        (folder / "htpasswd").write_text(htpasswd)
        registry.extra = {"auth": {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}}
    try:
        await asyncio.to_thread(registry.start)
        yield registry.url
    finally:
        await asyncio.to_thread(registry.end)


@asynccontextmanager
async def builtin(folder: Path) -> AsyncIterator[str]:
    """Runs the built-in registry and yields its base URL."""
    registry = BuiltinRegistry(folder / "builtin", clock=SystemClock())
    await registry.start()
    try:
        yield registry.url
    finally:
        await registry.stop()


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Stub:
    """An HTTP server that answers by the function `answer` and keeps the requests it received."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[web.Request] = []
        self.answer: Answer = _nothing

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers one request."""
        self.asked.append(request)
        return await self.answer(request)

    def authorizations(self) -> list[str | None]:
        """Returns the Authorization header of each request."""
        return [request.headers.get("Authorization") for request in self.asked]

    def says(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        """Makes all further answers alike; `Content_Type` in `headers` means Content-Type."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(status=status, body=body, headers=named)

        self.answer = answer


@asynccontextmanager
async def stub() -> AsyncIterator[Stub]:
    """Runs a stub on a free port; it answers 404 until the test sets something else."""
    server = Stub()
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


async def _nothing(_: web.Request) -> web.StreamResponse:
    return web.Response(status=404)
