"""The node: the ports that all roles of a process share, such as the log, declared state, clock and secrets."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from consumer.settings import AgentSettings
from mesh.clock import Clock, SystemClock
from mesh.control.settings import ControlSettings
from mesh.credentials.hosts import SecretHosts
from mesh.credentials.secrets import Secrets
from mesh.errors import LogError, LogUnavailable, RegmeshError
from mesh.gateway.settings import GatewaySettings
from mesh.log.dead_letters import send_record_to_dlq
from mesh.log.port import Log, Record
from mesh.log.table import Table
from mesh.metrics import Metrics
from mesh.node import engines
from mesh.node.settings import NodeSettings, from_environment
from mesh.retry import until_log_available
from mesh.rules.state import MeshState
from producer.settings import ProducerSettings
from schemas import topics

LOG = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Trust:
    """What the operator of this process chose to trust; nothing on the log adds to it."""

    networks: tuple[str, ...] = ()  # CIDRs that registries may redirect to, besides public addresses
    realms: tuple[str, ...] = ()  # origins of token servers that are not on their registry's own host
    secret_hosts: SecretHosts = field(default_factory=dict)  # which hosts each secret is for


@dataclass(frozen=True, slots=True)
class RoleSettings:
    """The limits of the node and of every role, all read at once: one wrong variable ends any daemon as it starts."""

    node: NodeSettings
    agent: AgentSettings
    producer: ProducerSettings
    control: ControlSettings
    gateway: GatewaySettings

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "RoleSettings":
        """Reads all groups from environment variables.

        Raises:
            InvalidSettings: A variable has no field, or a value that its field does not accept.
        """
        return cls(
            node=from_environment(NodeSettings, environment),
            agent=from_environment(AgentSettings, environment),
            producer=from_environment(ProducerSettings, environment),
            control=from_environment(ControlSettings, environment),
            gateway=from_environment(GatewaySettings, environment),
        )


@dataclass(frozen=True, slots=True)
class Node:
    """The ports of one process."""

    log: Log
    state: MeshState
    table: Table  # follows the topic `mesh.state` and fills `state`
    clock: Clock
    metrics: Metrics
    secrets: Secrets
    data: Path
    trust: Trust
    settings: RoleSettings
    is_log_shared: bool  # with processes of other machines

    def random(self) -> float:
        """Returns a number from [0, 1) for jitter."""
        return random.random()  # noqa: S311

    def not_ready(self) -> list[str]:
        """Returns the reasons why this process is not ready, if any."""
        return [] if self.table.ready else ["the declared state has not been read to its end yet"]


@asynccontextmanager
async def open_node(
    log_url: str | None,
    data: Path,
    trust: Trust = Trust(),
    metrics: Metrics | None = None,
    *,
    connect: bool = True,
) -> AsyncIterator[Node]:
    """Opens the log and follows `mesh.state` until the block ends.

    Args:
        log_url: The log; None for the embedded one in `data`.
        data: The directory of the node's files; it is created if it is missing.
        metrics: Those of the process by default, of which there can be only one.
        connect: Wait until the log answers; else the declared state is read once it does.

    Raises:
        InvalidInput: An environment variable, the URL or a secret that it names is wrong.
        LogError: The log cannot be opened.
        NoFolder: The data directory cannot be created.
    """
    settings = RoleSettings.read(os.environ)
    clock = SystemClock()
    secrets = Secrets(os.environ, clock, trust.secret_hosts)
    _make_folder(data)
    shared = engines.is_shared(log_url or default_log(data))
    log = await engines.open_log(log_url or default_log(data), clock=clock, secrets=secrets, connect=connect)
    try:
        metrics = metrics or Metrics()
        if connect:
            await _make_state_topic(log)
        state = MeshState()

        def apply(record: Record) -> None:
            state.apply(record.key, record.value, record.offset)

        async def unreadable(record: Record, reason: str) -> None:
            await _send_to_dlq(record, reason, state, log, clock, metrics)

        table = Table(log, topics.STATE, apply, unreadable=unreadable, clock=clock)
        async with asyncio.TaskGroup() as group:
            following = group.create_task(
                _follow(table, log, clock, connected=connect), name="follow mesh.state"
            )
            yield Node(log, state, table, clock, metrics, secrets, data, trust, settings, shared)
            following.cancel()
    finally:
        await log.close()


def default_log(data: Path) -> str:
    """Returns the URL of the embedded log in the data directory."""
    return f"sqlite://{data / 'mesh.db'}"


def _make_folder(data: Path) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoFolder(
            f"cannot create the data directory {data}: {error.strerror or error}; name another with --data"
        ) from error


class NoFolder(RegmeshError):
    """The data directory cannot be created."""

    code = "no_folder"


async def _follow(table: Table, log: Log, clock: Clock, *, connected: bool) -> None:
    if not connected:
        await until_log_available(lambda: _make_state_topic(log), clock)
    await table.run()


async def _make_state_topic(log: Log) -> None:
    try:
        await log.ensure([topics.STATE])
    except LogUnavailable:
        raise
    except LogError as error:
        raise LogError(f"{error}; `regmesh topics create` creates the topics of a mesh") from error


async def _send_to_dlq(
    record: Record, reason: str, state: MeshState, log: Log, clock: Clock, metrics: Metrics
) -> None:
    """Sends a record of `mesh.state` that this version cannot read to the dead-letter queue of the first region."""
    metrics.dead_letters.labels(record.partition.topic).inc()
    LOG.error(
        "cannot read a record of the declared state", action="state_unreadable", key=record.key, reason=reason
    )
    for region in state.regions()[:1]:
        await send_record_to_dlq(log, region.name, record, reason, clock)
