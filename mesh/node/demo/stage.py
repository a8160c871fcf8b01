"""The stage of the demo: its registries and every role of the mesh, in this process."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from consumer.blobs.relay.serve import Relays
from consumer.settings import AgentSettings
from mesh.clock import SystemClock
from mesh.credentials.hosts import RELAYS
from mesh.gateway import GatewayOptions
from mesh.node import lifecycle, roles, serve
from mesh.node.cli.control_client import ControlClient
from mesh.node.cli.gateway import open_gateway
from mesh.node.demo import topology
from mesh.node.node import Node, Trust, open_node
from mesh.registry.builtin import BuiltinRegistry
from mesh.registry.builtin.notify import Notify
from mesh.registry.client import RegistryClient, open_endpoint
from schemas.completions import Side
from schemas.names import Region

_DISCOVERY_SECONDS = 2.5  # in which the agents discover each other


@dataclass(frozen=True, slots=True)
class Stage:
    """A running mesh: URLs of its API and gateway, and its registries by place."""

    node: Node
    url: str
    gateway: str
    registries: dict[str, BuiltinRegistry]

    @property
    def api(self) -> ControlClient:
        """A client of control's API."""
        return ControlClient(self.url)

    @asynccontextmanager
    async def client(self, place: str) -> AsyncIterator[RegistryClient]:
        """Opens a client of a place's registry."""
        endpoint = open_endpoint("demo", self.registries[place].url, None)
        try:
            yield endpoint.registry(Side.DESTINATION)
        finally:
            await endpoint.close()


@asynccontextmanager
async def open_stage(folder: Path) -> AsyncIterator[Stage]:
    """Runs the mesh until the block ends, with all files in `folder`."""
    os.environ[f"REGMESH_SECRET_{topology.RELAY_SECRET}"] = secrets.token_hex(16)
    trust = Trust(secret_hosts={topology.RELAY_SECRET: {RELAYS}})
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_node(None, folder, trust))
        control, relays = roles.control(node, None), Relays()
        intake = await stack.enter_async_context(roles.intake(node))
        url = await stack.enter_async_context(
            serve.listening("127.0.0.1:0", node, [intake.routes, control.routes, relays.routes])
        )
        registries = {
            place: await stack.enter_async_context(_registry(folder, place, url))
            for place in topology.places()
        }
        await node.table.caught_up()
        await control.apply(topology.document({place: found.url for place, found in registries.items()}))
        background = lifecycle.background(control.run(), roles.reconcile(node).run(), intake.run())
        await stack.enter_async_context(background)
        agents = roles.EveryRegion(node, relays, url, AgentSettings(heartbeat_every=1.0))
        ended = asyncio.Event()
        group = await stack.enter_async_context(asyncio.TaskGroup())
        group.create_task(agents.run(ended))
        stack.callback(ended.set)
        options = GatewayOptions(topology.DOMAIN, behind_proxy=False)
        gateway = await stack.enter_async_context(
            open_gateway(node, Region("singapore"), "127.0.0.1:0", options)
        )
        await asyncio.sleep(_DISCOVERY_SECONDS)
        yield Stage(node, url, gateway, registries)


@asynccontextmanager
async def _registry(folder: Path, place: str, url: str) -> AsyncIterator[BuiltinRegistry]:
    """Runs the registry of a place; an instance's sends notifications."""
    notify = None if "@" in place else Notify(f"{url}/v1/notifications/{place}")
    registry = BuiltinRegistry(folder / place, clock=SystemClock(), notify=notify)
    await registry.start()
    try:
        yield registry
    finally:
        await registry.stop()
