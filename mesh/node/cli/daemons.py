"""The daemons `producer`, `agent` and `control`; `regmesh demo`."""

import asyncio
from typing import Annotated

import typer

from consumer.blobs.relay.serve import Relays
from mesh import logging
from mesh.control.storage.database import check as check_database
from mesh.node import INTERRUPTED, lifecycle, roles, serve
from mesh.node.cli import daemon_options
from mesh.node.cli.options import (
    DEFAULT_DATA,
    AllowNetwork,
    ApiHost,
    ApiOpen,
    DataDir,
    Listen,
    LogFormat,
    PrefetchBytes,
    SecretsFor,
    SharedLog,
    TokenRealm,
    option,
)
from mesh.node.demo import run as run_demo
from mesh.node.node import open_node
from producer import known_instances


def _check_database(url: str | None) -> str | None:
    """A callback: a wrong database ends the command before anything is opened."""
    if url is not None:
        check_database(url)
    return url


Database = Annotated[
    str | None,
    option(
        "The database of the sync log: sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME.",
        envvar="REGMESH_DATABASE",
        metavar="URL",
        show_default="sqlite in the data directory",
        callback=_check_database,
    ),
]
RelayUrl = Annotated[
    str | None,
    option(
        "The URL at which agents of other regions reach this one to get blobs, if the region declares a relay.",
        envvar="REGMESH_RELAY_URL",
        metavar="URL",
        show_default="the region's relay.url; without one this agent relays nothing",
    ),
]


def demo() -> None:
    """Show a release that spreads over nine regions.

    Everything runs in this process on embedded parts. The demo ends by itself within a minute, and exits with 1 when
    its report does not hold.
    """
    logging.set_up(json=False, level="error")
    if not run_demo():
        raise typer.Exit(INTERRUPTED)


def producer(
    log: SharedLog = None,
    data: DataDir = DEFAULT_DATA,
    listen: Listen = "127.0.0.1:8081",
    allow_network: AllowNetwork = None,
    token_realm: TokenRealm = None,
    secrets_for: SecretsFor = None,
    log_format: LogFormat = "auto",
) -> None:
    """Run a producer: it writes events to the log.

    Events come from notifications of registries and from listings for executions. While Kafka is away, notifications
    wait in the data directory. Run as many producers as needed, each with its own --data.
    Example: regmesh producer --log kafka://kafka-1:9092
    """
    daemon_options.set_up_logging(log_format)
    trust = daemon_options.parse_trust(allow_network, token_realm, daemon_options.read_mesh_file(secrets_for))
    may_wait = known_instances.exist(roles.known_instances_file(data))  # else a wrong --log is an error now

    async def main(stopping: asyncio.Event) -> None:
        async with (
            open_node(daemon_options.require_shared_log(log), data, trust, connect=not may_wait) as node,
            roles.intake(node) as intake,
            serve.listening(listen, node, [intake.routes], not_ready=intake.not_ready, notes=intake.notes),
            lifecycle.background(roles.reconcile(node).run(), intake.run()),
        ):
            await stopping.wait()

    lifecycle.run(main)


def agent(
    region: Annotated[str, option("The region whose registries this agent fills.")],
    log: SharedLog = None,
    data: DataDir = DEFAULT_DATA,
    listen: Listen = "127.0.0.1:8082",
    relay_url: RelayUrl = None,
    allow_network: AllowNetwork = None,
    token_realm: TokenRealm = None,
    secrets_for: SecretsFor = None,
    prefetch_bytes: PrefetchBytes = None,
    log_format: LogFormat = "auto",
) -> None:
    """Run an agent: it fills REGION's registries.

    Agents of one region share its tasks. Example: regmesh agent --region shanghai --log kafka://kafka-1:9092
    """
    daemon_options.set_up_logging(log_format)
    name = daemon_options.parse_region(region)
    daemon_options.check_http_url("--relay-url", relay_url)
    trust = daemon_options.parse_trust(allow_network, token_realm, daemon_options.read_mesh_file(secrets_for))

    async def main(stopping: asyncio.Event) -> None:
        relays = Relays()
        async with (
            open_node(daemon_options.require_shared_log(log), data, trust) as node,
            serve.listening(listen, node, [relays.routes]),
        ):
            running = roles.agent(
                node, name, roles.agent_settings(node, prefetch_bytes), relays=relays, url=relay_url
            )
            async with asyncio.TaskGroup() as group:
                work = group.create_task(running.run(), name=f"agent {name}")
                stop = group.create_task(stopping.wait())
                await asyncio.wait([work, stop], return_when=asyncio.FIRST_COMPLETED)
                running.stop()
                stop.cancel()

    lifecycle.run(main)


def control(
    log: SharedLog = None,
    data: DataDir = DEFAULT_DATA,
    listen: Listen = "127.0.0.1:8080",
    api_open: ApiOpen = False,
    api_host: ApiHost = None,
    database: Database = None,
    secrets_for: SecretsFor = None,
    log_format: LogFormat = "auto",
) -> None:
    """Run control: declarations, sync log, webhooks, API.

    The API answers callers on this machine, until --api-open. Example: regmesh control --log kafka://kafka-1:9092
    """
    daemon_options.set_up_logging(log_format)
    trust = daemon_options.parse_trust(None, None, daemon_options.read_mesh_file(secrets_for))
    access = daemon_options.parse_api_access(api_open, api_host, listen)

    async def main(stopping: asyncio.Event) -> None:
        async with open_node(daemon_options.require_shared_log(log), data, trust) as node:
            role = roles.control(node, database, access)
            async with (
                serve.listening(listen, node, [role.routes], notes=role.notes),
                lifecycle.background(role.run()),
            ):
                await stopping.wait()

    lifecycle.run(main)
