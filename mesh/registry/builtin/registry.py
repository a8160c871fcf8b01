"""The built-in registry: OCI Distribution 1.1 over HTTP, stored on disk, for `regmesh demo` and for tests.

It runs in the caller's event loop. This module has the routes, the authentication and the counters. The handlers are in
`manifests`, `blobs` and `uploads`, the disk in `store`.
"""

import hmac
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from mesh.clock import Clock
from mesh.registry.builtin.blobs import Blobs
from mesh.registry.builtin.faults import Faults, Traffic
from mesh.registry.builtin.manifests import Deletes, Manifests
from mesh.registry.builtin.notify import Notifier, Notify
from mesh.registry.builtin.request_parsing import ApiError, credentials_in
from mesh.registry.builtin.store import Store
from mesh.registry.builtin.uploads import Uploads

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Credentials:
    """The only credentials that the registry accepts."""

    user: str
    password: str = field(repr=False)


def _new_id() -> str:
    return str(uuid.uuid4())


class BuiltinRegistry:
    """One registry in the folder `root`. It can be started again after `stop`.

    Args:
        referrers: Whether it has the referrers API, which registries before OCI 1.1 lack.
        sparse_indexes: Whether it accepts an index before its images.
        deletes: What it deletes: nothing, manifests by digest only (as docker-registry 2.8), or tags too.
    """

    def __init__(
        self,
        root: Path,
        *,
        clock: Clock,
        notify: Notify | None = None,
        faults: Faults | None = None,
        credentials: Credentials | None = None,
        fsync: bool = False,
        referrers: bool = True,
        sparse_indexes: bool = False,
        deletes: Deletes = "tags",
        new_id: Callable[[], str] = _new_id,
    ) -> None:
        self.faults = faults or Faults()
        self.traffic = Traffic()
        self.url = ""
        self._credentials = credentials
        self._store = Store(root, fsync=fsync)
        self._notifier = Notifier(notify, clock=clock, new_id=new_id)
        self._manifests = Manifests(
            self._store, clock=clock, faults=self.faults, notifier=self._notifier, has_referrers=referrers,
            takes_sparse=sparse_indexes, deletes=deletes,
        )  # fmt: skip
        self._blobs = Blobs(self._store, clock=clock, faults=self.faults, traffic=self.traffic)
        self._uploads = Uploads(
            self._store, clock=clock, faults=self.faults, traffic=self.traffic, notifier=self._notifier,
            new_id=new_id,
        )  # fmt: skip
        self._runner: web.AppRunner | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listens, and sets `url`. Port 0 selects a free port.

        Raises:
            OSError: The port is in use.
        """
        self._store.open()
        self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        address = self._runner.addresses[0]
        self.url = f"http://{host}:{address[1]}"
        self._notifier.start(self.url)

    async def stop(self) -> None:
        """Closes all connections; uploads in progress and queued notifications are lost."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self._uploads.close()
        await self._notifier.stop()

    async def drained(self) -> None:
        """Waits until the endpoint has accepted every notification."""
        await self._notifier.drained()

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._count, self._authenticate, self._misbehave])
        for name, path, handlers in self._routes():
            resource = app.router.add_resource(path, name=name)
            for method, handler in handlers.items():
                resource.add_route(method, handler)
        return app

    def _routes(self) -> list[tuple[str, str, dict[str, _Handler]]]:
        manifests, blobs, uploads = self._manifests, self._blobs, self._uploads
        repository = "/v2/{name:.+}"
        session: dict[str, _Handler] = {"GET": uploads.status, "PATCH": uploads.append}
        session |= {"PUT": uploads.finish, "DELETE": uploads.cancel}
        manifest: dict[str, _Handler] = {"GET": manifests.get, "HEAD": manifests.get}
        manifest |= {"PUT": manifests.put, "DELETE": manifests.delete}
        return [
            ("base", "/v2/", {"GET": _base, "HEAD": _base}),
            ("catalog", "/v2/_catalog", {"GET": manifests.catalog}),
            ("tags", repository + "/tags/list", {"GET": manifests.tags}),
            ("referrers", repository + "/referrers/{digest}", {"GET": manifests.referrers}),
            ("manifest", repository + "/manifests/{reference}", manifest),
            ("uploads", repository + "/blobs/uploads/", {"POST": uploads.start}),
            ("upload", repository + "/blobs/uploads/{session}", session),
            (
                "blob",
                repository + "/blobs/{digest}",
                {"GET": blobs.get, "HEAD": blobs.head, "DELETE": blobs.delete},
            ),
        ]

    @web.middleware
    async def _count(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        self.traffic.requests[request.method, (resource.name if resource else None) or "none"] += 1
        return await handler(request)

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if self._credentials is not None and not _matches(self._credentials, credentials_in(request)):
            challenge = {"WWW-Authenticate": 'Basic realm="regmesh", charset="UTF-8"'}
            raise ApiError(401, "UNAUTHORIZED", "user and password are required", headers=challenge)
        return await handler(request)

    @web.middleware
    async def _misbehave(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if throttle := self.faults.throttles():
            wait = {} if throttle.retry_after is None else {"Retry-After": str(throttle.retry_after)}
            raise ApiError(429, "TOOMANYREQUESTS", "too many requests", headers=wait)
        if (status := self.faults.fails(request.method, request.path)) is not None:
            raise ApiError(status, "UNKNOWN", "an injected fault")
        return await handler(request)


async def _base(request: web.Request) -> web.StreamResponse:  # noqa: ARG001 - a handler's signature
    return web.json_response({}, headers={"Docker-Distribution-Api-Version": "registry/2.0"})


def _matches(wanted: Credentials, given: tuple[str, str] | None) -> bool:
    user, password = given or ("", "")
    same_user = hmac.compare_digest(user.encode(), wanted.user.encode())
    return hmac.compare_digest(password.encode(), wanted.password.encode()) and same_user
