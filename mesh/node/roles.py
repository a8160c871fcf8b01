"""The composition roots: each role, built from the node's ports and its settings."""

import asyncio
import os
import platform
import secrets as randomness
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from aiohttp import web

from consumer.agent import Agent
from consumer.blobs.relay.access import RelayAccess
from consumer.blobs.relay.serve import Relays
from consumer.blobs.relay.signing import MeshKeys, RelayKeys
from consumer.places import Places
from consumer.ports import AgentPorts
from consumer.settings import AgentSettings
from mesh.control import LOCAL_ONLY, ApiAccess, Control
from mesh.control.ports import ControlPorts
from mesh.control.storage.database import check as check_database
from mesh.gateway import Gateway, GatewayOptions, GatewaySettings
from mesh.log.spool import Spool, open_spool
from mesh.loopback import reachable_here
from mesh.node import registries
from mesh.node.declared_relay import declared_relay
from mesh.node.node import Node
from producer import Intake, KnownInstances, Reconcile
from schemas.names import Region

_REGIONS_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class IntakeRole:
    """The half of the producer that receives notifications; `spool` keeps them while a shared log is away."""

    intake: Intake
    spool: Spool | None

    def routes(self, app: web.Application) -> None:
        """Adds the route for notifications."""
        self.intake.routes(app)

    def not_ready(self) -> list[str]:
        """Returns why no notification can be accepted now, if so."""
        return self.intake.not_ready()

    async def run(self) -> None:
        """Runs what goes on beside notifications, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.intake.run())
            if self.spool is not None:
                tasks.create_task(self.spool.run())

    def notes(self) -> list[str]:
        """Returns what an operator should know, a sentence each."""
        return self.spool.notes() if self.spool is not None else []


@asynccontextmanager
async def intake(node: Node) -> AsyncIterator[IntakeRole]:
    """Yields the half of the producer that receives notifications.

    Raises:
        LogError: The spool in the data directory cannot be opened.
    """
    async with AsyncExitStack() as stack:
        spool = None
        limits = node.settings.producer
        if node.is_log_shared and limits.spool_bytes:
            spool = await open_spool(
                node.log, node.data / "spool.db", clock=node.clock, metrics=node.metrics,
                limit=limits.spool_bytes, after=limits.spool_after,
            )  # fmt: skip
            await stack.enter_async_context(aclosing(spool))
        yield IntakeRole(_intake(node, spool), spool)


def _intake(node: Node, spool: Spool | None) -> Intake:
    path = known_instances_file(node.data) if spool is not None else None  # useless without a spool
    return Intake(
        log=spool or node.log,
        is_log_away=spool.is_log_away if spool is not None else lambda: False,
        known=KnownInstances(path, node.state, node.table, node.clock),
        state=node.state,
        table=node.table,
        secrets=node.secrets,
        clock=node.clock,
        metrics=node.metrics,
        settings=node.settings.producer,
        name=f"intake.{platform.node() or 'host'}.{os.getpid()}",
    )


def known_instances_file(data: Path) -> Path:
    """Returns the file in the data directory that has the instances which were declared last."""
    return data / "instances.json"


def reconcile(node: Node) -> Reconcile:
    """Returns the half of the producer that lists registries for executions."""
    return Reconcile(
        log=node.log,
        state=node.state,
        table=node.table,
        open_endpoint=registries.opener(node),
        clock=node.clock,
        random=node.random,
        settings=node.settings.producer,
    )


def control(node: Node, database: str | None, access: ApiAccess = LOCAL_ONLY) -> Control:
    """Returns the control role.

    Args:
        node: The ports.
        database: The URL of the sync log's database, checked already; None for a file in the data directory.
        access: Who may call the API; by default callers on this machine.

    Raises:
        InvalidInput: The file in the data directory cannot be a database.
    """
    if database is None:
        database = f"sqlite:///{node.data / 'control.db'}"
        check_database(database)
    ports = ControlPorts(
        log=node.log, state=node.state, clock=node.clock, metrics=node.metrics, random=node.random
    )
    return Control(
        ports, table=node.table, secrets=node.secrets, database=database, settings=node.settings.control,
        access=access,
    )  # fmt: skip


def agent(
    node: Node,
    region: Region,
    settings: AgentSettings | None = None,
    *,
    relays: Relays | None = None,
    url: str | None = None,
    own_keys: RelayKeys | None = None,
) -> Agent:
    """Returns an agent of a region.

    Args:
        node: The ports.
        region: The region whose registries it fills.
        settings: Its limits, instead of those of the environment.
        relays: Gets the agent's relay, which serves blobs to agents of other regions.
        url: Where other agents reach that relay, unless the region declares a URL; without either it relays nothing.
        own_keys: Keys of the agents of this process, when they relay among each other and with nobody else.
    """
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
    relays = relays or Relays()
    access = (
        RelayAccess(lambda: url, lambda: own_keys)
        if own_keys is not None
        else declared_relay(node, region, url)
    )
    made = Agent(ports, settings or node.settings.agent, replace(access, tees=relays.tees))
    relays.add(region, made.relay)
    return made


def agent_settings(node: Node, prefetch_bytes: int | None) -> AgentSettings:
    """Returns an agent's limits, with the value of --prefetch-bytes if there is one."""
    found = node.settings.agent
    if prefetch_bytes is None:
        return found
    transfers = found.transfers.model_copy(update={"prefetch_bytes": prefetch_bytes})
    return found.model_copy(update={"transfers": transfers})


def gateway(
    node: Node, region: Region, options: GatewayOptions, settings: GatewaySettings | None = None
) -> Gateway:
    """Returns the gateway for the clients of a region; `settings` replaces the limits of the environment."""
    return Gateway(
        region=region,
        log=node.log,
        state=node.state,
        table=node.table,
        open_upstream=registries.upstream_clients(node),
        clock=node.clock,
        metrics=node.metrics,
        options=options,
        settings=settings or node.settings.gateway,
    )


@dataclass(slots=True)
class EveryRegion:
    """Runs an agent for each declared region in one process; a region that is declared later gets one too.

    When no other process can be part of the mesh, they relay among each other, whatever is declared.
    """

    node: Node
    relays: Relays
    url: str
    settings: AgentSettings | None = None
    agents: dict[Region, Agent] = field(default_factory=dict)

    async def run(self, stopping: asyncio.Event) -> None:
        """Runs until `stopping` is set, then lets every agent drain."""
        is_alone = not self.node.is_log_shared
        own_keys = MeshKeys(randomness.token_hex(32)) if is_alone else None
        url = reachable_here(self.url) if is_alone else self.url
        async with asyncio.TaskGroup() as group:
            while not stopping.is_set():
                for region in self.node.state.regions():
                    if region.name not in self.agents:
                        started = self.agents[region.name] = agent(
                            self.node, region.name, self.settings, relays=self.relays, url=url,
                            own_keys=own_keys,
                        )  # fmt: skip
                        group.create_task(started.run(), name=f"agent {region.name}")
                try:
                    async with asyncio.timeout(_REGIONS_POLL_SECONDS):
                        await stopping.wait()
                except TimeoutError:
                    continue
            for running in self.agents.values():
                running.stop()
