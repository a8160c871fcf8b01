"""What every role of a process stands on: the log, what is declared, time, metrics, secrets."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from mesh.clock import Clock, SystemClock
from mesh.credentials.secrets import Secrets
from mesh.errors import LogError, LogUnavailable, RegmeshError
from mesh.log.dead_letters import send_record_to_dlq
from mesh.log.port import Log, Record
from mesh.log.table import Table
from mesh.metrics import Metrics
from mesh.node import engines
from mesh.node.settings import NodeSettings, from_environment
from mesh.rules.state import MeshState
from schemas import topics

LOG = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Trust:
    """What registries may send us to beyond themselves and public addresses: the operator's word, not theirs."""

    networks: tuple[str, ...] = ()  # CIDRs
    realms: tuple[str, ...] = ()  # token servers, as origins


@dataclass(frozen=True, slots=True)
class Node:
    """The ports that roles are given."""

    log: Log
    state: MeshState
    table: Table  # of `mesh.state`, feeding `state`
    clock: Clock
    metrics: Metrics
    secrets: Secrets
    data: Path
    trust: Trust
    settings: NodeSettings

    def random(self) -> float:
        return random.random()  # noqa: S311  # jitter, no secret

    def not_ready(self) -> list[str]:
        """Why this process is not ready to work; empty when it is."""
        return [] if self.table.ready else ["what is declared was not read to its end yet"]


@asynccontextmanager
async def open_node(
    log_url: str | None, data: Path, trust: Trust = Trust(), metrics: Metrics | None = None
) -> AsyncIterator[Node]:
    """Open the log and follow `mesh.state`. Without `metrics` they are the process's, of which there is one.

    `LogError` or `InvalidInput` when the log cannot be opened.
    """
    settings = from_environment(NodeSettings, os.environ)
    clock, metrics, secrets = SystemClock(), metrics or Metrics(), Secrets(os.environ)
    _make_folder(data)
    log = await engines.open_log(log_url or default_log(data), clock=clock, secrets=secrets)
    try:
        await _make_state_topic(log)
        state = MeshState()

        def apply(record: Record) -> None:
            state.apply(record.key, record.value, record.offset)

        async def unreadable(record: Record, reason: str) -> None:
            await _send_to_dlq(record, reason, state, log, clock, metrics)

        table = Table(log, topics.STATE, apply, unreadable=unreadable, clock=clock)
        async with asyncio.TaskGroup() as group:
            following = group.create_task(table.run(), name="follow mesh.state")
            yield Node(log, state, table, clock, metrics, secrets, data, trust, settings)
            following.cancel()
    finally:
        await log.close()


def default_log(data: Path) -> str:
    """The embedded log in the data directory."""
    return f"sqlite://{data / 'mesh.db'}"


def _make_folder(data: Path) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoFolder(
            f"cannot make the data directory {data}: {error.strerror or error}; name another with --data"
        ) from error


class NoFolder(RegmeshError):
    code = "no_folder"


async def _make_state_topic(log: Log) -> None:
    try:
        await log.ensure([topics.STATE])
    except LogUnavailable:
        raise
    except LogError as error:
        raise LogError(f"{error}; `regmesh topics create` makes the topics of a mesh") from error


async def _send_to_dlq(
    record: Record, reason: str, state: MeshState, log: Log, clock: Clock, metrics: Metrics
) -> None:
    """Put a record of `mesh.state` that this version cannot read where a human finds it, and go on without it."""
    metrics.dead_letters.labels(record.partition.topic).inc()
    LOG.error("cannot read what is declared", action="state_unreadable", key=record.key, reason=reason)
    for region in state.regions()[:1]:
        await send_record_to_dlq(log, region.name, record, reason, clock)
