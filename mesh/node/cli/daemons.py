"""`regmesh up` and the daemons `producer`, `agent` and `control`; `regmesh demo`."""

import asyncio
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer

from consumer.blobs.relay.serve import Relays
from mesh import logging
from mesh.control import Control, InvalidDocument
from mesh.control.storage.database import check as check_database
from mesh.errors import InvalidInput
from mesh.gateway import GatewayOptions
from mesh.node import INTERRUPTED, engines, lifecycle, mesh_file, roles, serve
from mesh.node.cli import daemon_options
from mesh.node.cli.gateway import open_gateway, parse_gateways
from mesh.node.cli.options import (
    DEFAULT_DATA,
    AllowNetwork,
    DataDir,
    Listen,
    LogFormat,
    LogUrl,
    PrefetchBytes,
    SecretsFor,
    SharedLog,
    TokenRealm,
    option,
)
from mesh.node.demo import run as run_demo
from mesh.node.node import Node, default_log, open_node
from mesh.rules.validation import declarations
from schemas.names import Region


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


def up(
    file: Annotated[Path, option("The mesh.yaml to declare.", "--file", "-f")],
    log: LogUrl = None,
    data: DataDir = DEFAULT_DATA,
    listen: Listen = "127.0.0.1:8080",
    database: Database = None,
    gateway: Annotated[
        list[str] | None,
        option("Also run a gateway for a region's clients; repeat for more.", metavar="REGION=HOST:PORT"),
    ] = None,
    allow_network: AllowNetwork = None,
    token_realm: TokenRealm = None,
    prefetch_bytes: PrefetchBytes = None,
    log_format: LogFormat = "auto",
) -> None:
    """Run every role in one process, with FILE declared.

    The process receives notifications, copies images, keeps the sync log and serves the API. With the embedded log this
    is all that a small site needs. What FILE no longer names stays declared until `regmesh delete` removes it. Example:
    regmesh up -f mesh.yaml
    """
    daemon_options.set_up_logging(log_format)
    document = mesh_file.read(file)
    if engines.is_new(log or default_log(data)):  # else FILE may refer to what the log has declared already
        mesh_file.check(document)
    gateways = parse_gateways(gateway)
    trust = daemon_options.parse_trust(allow_network, token_realm, document)

    async def main(stopping: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            node = await stack.enter_async_context(open_node(log, data, trust))
            control = roles.control(node, database)
            intake, relays = roles.intake(node), Relays()
            listeners = 1 + len(gateways)
            served = [intake.routes, control.routes, relays.routes]
            url = await stack.enter_async_context(serve.listening(listen, node, served, listeners=listeners))
            await _declare(node, control, document)
            for region, _ in gateways:
                _check_region(node, region)
            urls = {
                region: await stack.enter_async_context(
                    open_gateway(
                        node,
                        region,
                        address,
                        GatewayOptions(),
                        listen_option="--gateway",
                        listeners=listeners,
                    )
                )
                for region, address in gateways
            }
            _print_addresses(node, url, document, urls)
            async with lifecycle.background(control.run(), roles.reconcile(node).run(), intake.run()):
                agents = roles.EveryRegion(node, relays, url, roles.agent_settings(node, prefetch_bytes))
                await agents.run(stopping)

    lifecycle.run(main)


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

    Events come from notifications of registries and from listings for executions. Run as many producers as needed.
    Example: regmesh producer --log kafka://kafka-1:9092
    """
    daemon_options.set_up_logging(log_format)
    trust = daemon_options.parse_trust(allow_network, token_realm, daemon_options.read_mesh_file(secrets_for))

    async def main(stopping: asyncio.Event) -> None:
        async with open_node(daemon_options.require_shared_log(log), data, trust) as node:
            intake = roles.intake(node)
            async with (
                serve.listening(listen, node, [intake.routes]),
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
    database: Database = None,
    secrets_for: SecretsFor = None,
    log_format: LogFormat = "auto",
) -> None:
    """Run control: declarations, sync log, webhooks, API.

    Example: regmesh control --log kafka://kafka-1:9092
    """
    daemon_options.set_up_logging(log_format)
    trust = daemon_options.parse_trust(None, None, daemon_options.read_mesh_file(secrets_for))

    async def main(stopping: asyncio.Event) -> None:
        async with open_node(daemon_options.require_shared_log(log), data, trust) as node:
            role = roles.control(node, database)
            async with serve.listening(listen, node, [role.routes]), lifecycle.background(role.run()):
                await stopping.wait()

    lifecycle.run(main)


async def _declare(node: Node, control: Control, file: mesh_file.MeshFile) -> None:
    """Declares the file beside what the log holds already, or nothing of it when it has one problem."""
    await node.table.caught_up()
    try:
        changes = await control.apply(file.document)
    except InvalidDocument as error:
        raise mesh_file.InvalidFile(file.format_problems(error.problems)) from error
    for change in changes:
        if change.note is not None:
            print(f"note: {change.key} {change.note}")


def _check_region(node: Node, region: Region) -> None:
    if node.state.region(region) is None:
        known = ", ".join(sorted(one.name for one in node.state.regions())) or "none"
        raise InvalidInput(f"--gateway: no region is named {region!r}; declared are: {known}")


def _print_addresses(node: Node, url: str, file: mesh_file.MeshFile, gateways: Mapping[Region, str]) -> None:
    print(f"regmesh is up at {url} with {file.path} declared (data in {node.data.absolute()})")
    for instance in node.state.instances():
        print(f"  instance {instance.name} in {instance.region}: {instance.url}")
        print(f"    its registry sends notifications to {url}/v1/notifications/{instance.name}")
    for region, gateway_url in gateways.items():
        print(f"  gateway of {region}: {gateway_url}")
    named = {item.thing.key for item in declarations.judge(file.document)[0]}
    for thing in node.state.things():
        if thing.key not in named:
            noun, _, name = thing.key.partition("/")
            print(
                f"  {thing.key} is declared, but not by {file.path}: `regmesh delete {noun} {name}` removes it"
            )
    sys.stdout.flush()
