"""The composition roots: each role built from the node's ports."""

import asyncio
import os
import platform
import secrets as randomness
from dataclasses import dataclass, field

from consumer.agent import Agent
from consumer.blobs.relay.serve import Relays
from consumer.blobs.transfers import RelayAccess
from consumer.places import Places
from consumer.ports import AgentPorts
from consumer.settings import AgentSettings, TransferLimits
from mesh.control import Control
from mesh.control.storage.database import check as check_database
from mesh.errors import InvalidInput
from mesh.gateway import Gateway, GatewayOptions, GatewaySettings
from mesh.node import registries
from mesh.node.node import Node
from producer import Intake, Reconcile
from schemas.names import Region
from schemas.topology import Relay

_LOOK_FOR_REGIONS_SECONDS = 0.5


def intake(node: Node) -> Intake:
    return Intake(
        log=node.log,
        state=node.state,
        table=node.table,
        secrets=node.secrets,
        clock=node.clock,
        metrics=node.metrics,
        name=f"intake.{platform.node() or 'host'}.{os.getpid()}",
    )


def reconcile(node: Node) -> Reconcile:
    """The producer's other half: it lists what executions ask for."""
    return Reconcile(
        log=node.log,
        state=node.state,
        table=node.table,
        open_endpoint=registries.opener(node),
        clock=node.clock,
        random=node.random,
    )


def control(node: Node, database: str | None) -> Control:
    """The control role; its sync log is in `database`, or in the data directory. `InvalidInput` when it cannot be."""
    if database is None:  # one that is given was looked at before anything was opened
        database = f"sqlite:///{node.data / 'control.db'}"
        check_database(database)
    return Control(
        log=node.log,
        state=node.state,
        table=node.table,
        clock=node.clock,
        metrics=node.metrics,
        secrets=node.secrets,
        random=node.random,
        database=database,
    )


def agent(
    node: Node,
    region: Region,
    settings: AgentSettings | None = None,
    *,
    relays: Relays | None = None,
    url: str | None = None,
) -> Agent:
    """An agent whose relay is one of `relays`, reached by others at `url`; without one it sends nothing on."""
    name = f"{region}.{platform.node() or 'host'}.{os.getpid()}.{randomness.token_hex(3)}"
    ports = AgentPorts(
        agent=name,
        region=region,
        log=node.log,
        state=node.state,
        rules=node.table,
        places=Places(
            registries.opener(node),
            open_anonymous=registries.opener(node, anonymous=True),
            metrics=node.metrics,
            clock=node.clock,
        ),
        clock=node.clock,
        metrics=node.metrics,
        random=node.random,
    )
    made = Agent(ports, settings or AgentSettings(), _relay_access(node, region, url))
    if relays is not None:
        relays.add(region, made.relay)
    return made


def settings(prefetch_bytes: int) -> AgentSettings:
    """An agent's, with what a command line says of them."""
    return AgentSettings(transfers=TransferLimits(prefetch_bytes=prefetch_bytes))


def _relay_access(node: Node, region: Region, own_url: str | None) -> RelayAccess:
    """As the region declares it: its address, or else this process's own, and the mesh's secret."""

    def declared() -> Relay | None:
        found = node.state.region(region)
        return found.relay if found is not None else None

    def secret() -> str | None:
        try:
            return node.secrets.get(relay.secret) if (relay := declared()) is not None else None
        except InvalidInput:
            return None  # without one everything is read from registries

    def url() -> str | None:
        relay = declared()
        return (relay.url or own_url) if relay is not None and secret() else None

    return RelayAccess(url, secret)


def gateway(
    node: Node, region: Region, options: GatewayOptions, settings: GatewaySettings | None = None
) -> Gateway:
    """Returns the gateway for the clients of `region`."""
    return Gateway(
        region=region,
        log=node.log,
        state=node.state,
        table=node.table,
        open_upstream=registries.upstream_clients(node),
        clock=node.clock,
        metrics=node.metrics,
        options=options,
        settings=settings or GatewaySettings(),
    )


@dataclass(slots=True)
class EveryRegion:
    """An agent for each declared region, in one process; a region that is declared later gets one too."""

    node: Node
    relays: Relays
    url: str
    settings: AgentSettings | None = None
    agents: dict[Region, Agent] = field(default_factory=dict)

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping`; then every agent drains."""
        async with asyncio.TaskGroup() as group:
            while not stopping.is_set():
                for region in self.node.state.regions():
                    if region.name not in self.agents:
                        started = self.agents[region.name] = agent(
                            self.node, region.name, self.settings, relays=self.relays, url=self.url
                        )
                        group.create_task(started.run(), name=f"agent {region.name}")
                try:
                    async with asyncio.timeout(_LOOK_FOR_REGIONS_SECONDS):
                        await stopping.wait()
                except TimeoutError:
                    continue
            for running in self.agents.values():
                running.stop()
