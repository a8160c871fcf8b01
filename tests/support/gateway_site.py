"""A gateway in the test's process over a `MeshSite`, and a client that calls it with a Host header."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import ClientSession
from prometheus_client import CollectorRegistry
from yarl import URL

from mesh.gateway import GatewayOptions, GatewaySettings
from mesh.metrics import Metrics
from mesh.node import roles, serve
from mesh.node.node import Trust
from schemas.names import Region
from tests.support.mesh_site import MeshSite

HUB = "hub.example.com"


@dataclass(frozen=True)
class Answer:
    """A response whose body has been read."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of its first OCI error."""
        return str(json.loads(self.body)["errors"][0]["code"])


@dataclass
class GatewaySite:
    """A gateway that serves, and the client's session."""

    url: str
    session: ClientSession
    metrics: Metrics
    host: str = HUB
    headers: dict[str, str] = field(default_factory=dict)

    async def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Requests `path` below `/v2/` and reads the answer; `Accept_Encoding` in `headers` means Accept-Encoding."""
        async with self.open(path, method, **headers) as response:
            return Answer(response.status, response.headers, await response.read())

    def open(self, path: str, method: str = "GET", **headers: str) -> Any:
        """Requests `path` as `ask` does, for a caller that reads the body itself; a leading `/` means the root."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"Host": self.host, **self.headers, **named}
        url = URL(
            f"{self.url}/{path.lstrip('/')}" if path.startswith("/") else f"{self.url}/v2/{path}",
            encoded=True,
        )
        return self.session.request(method, url, headers=sent, allow_redirects=False)

    def count(self, name: str, **labels: str) -> float:
        """Returns the value of the metric `regmesh_gateway_<name>`."""
        return self.metrics.registry.get_sample_value(f"regmesh_gateway_{name}", labels) or 0.0


@asynccontextmanager
async def gateway(
    site: MeshSite,
    region: str,
    options: GatewayOptions | None = None,
    trust: Trust | None = None,
    **limits: float,
) -> AsyncIterator[GatewaySite]:
    """Runs a gateway of `region` on the mesh's log, with metrics of its own."""
    node = replace(site.node, metrics=Metrics(CollectorRegistry()), trust=trust or Trust())
    await node.table.caught_up()
    settings = GatewaySettings.model_validate({"probe_interval": 0.1} | limits)
    role = roles.gateway(node, Region(region), options or GatewayOptions(), settings)
    probing = asyncio.create_task(role.run())
    try:
        async with serve.listening("127.0.0.1:0", node, [role.routes]) as url, ClientSession() as session:
            yield GatewaySite(url, session, node.metrics)
    finally:
        probing.cancel()
        await asyncio.gather(probing, return_exceptions=True)
