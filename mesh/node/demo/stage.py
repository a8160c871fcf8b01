"""The demo's registries, and every role between them, for as long as a block runs."""

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
from mesh.gateway import GatewayOptions
from mesh.node import roles, serve
from mesh.node.cli.gateway import open_gateway
from mesh.node.cli.remote import Remote
from mesh.node.demo import topology
from mesh.node.node import Node, open_node
from mesh.registry.builtin import BuiltinRegistry
from mesh.registry.builtin.notify import Notify
from mesh.registry.client import RegistryClient, open_endpoint
from schemas.completions import Side
from schemas.names import Region

_SETTLED_SECONDS = 2.5  # for the agents to hear of each other


@dataclass(frozen=True, slots=True)
class Stage:
    node: Node
    url: str
    gateway: str
    registries: dict[str, BuiltinRegistry]

    @property
    def remote(self) -> Remote:
        return Remote(self.url)

    @asynccontextmanager
    async def client(self, place: str) -> AsyncIterator[RegistryClient]:
        """As a client in that place's region."""
        endpoint = open_endpoint("demo", self.registries[place].url, None)
        try:
            yield endpoint.registry(Side.DESTINATION)
        finally:
            await endpoint.close()


@asynccontextmanager
async def on_stage(folder: Path) -> AsyncIterator[Stage]:
    os.environ[f"REGMESH_SECRET_{topology.RELAY_SECRET}"] = secrets.token_hex(16)
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_node(None, folder))
        control, intake, relays = roles.control(node, None), roles.intake(node), Relays()
        url = await stack.enter_async_context(
            serve.listening("127.0.0.1:0", node, [intake.routes, control.routes, relays.routes])
        )
        registries = {
            place: await stack.enter_async_context(_registry(folder, place, url))
            for place in topology.places()
        }
        await node.table.caught_up()
        await control.apply(topology.document({place: found.url for place, found in registries.items()}))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        ended = asyncio.Event()
        agents = roles.EveryRegion(node, relays, url, AgentSettings(heartbeat_every=1.0))
        serving = [
            group.create_task(control.run(), name="control"),
            group.create_task(roles.reconcile(node).run(), name="reconcile"),
            group.create_task(intake.run(), name="intake"),
        ]
        working = group.create_task(agents.run(ended), name="agents")
        gateway = await stack.enter_async_context(
            open_gateway(
                node, Region("singapore"), "127.0.0.1:0", GatewayOptions(topology.DOMAIN, behind_proxy=False)
            )
        )
        await asyncio.sleep(_SETTLED_SECONDS)
        try:
            yield Stage(node, url, gateway, registries)
        finally:
            ended.set()
            await asyncio.wait([working])
            for task in serving:
                task.cancel()


@asynccontextmanager
async def _registry(folder: Path, place: str, url: str) -> AsyncIterator[BuiltinRegistry]:
    """An instance's notifies; a replica's need not."""
    notify = None if "@" in place else Notify(f"{url}/v1/notifications/{place}")
    registry = BuiltinRegistry(folder / place, clock=SystemClock(), notify=notify)
    await registry.start()
    try:
        yield registry
    finally:
        await registry.stop()
