"""`regmesh up` and the daemons: producer, agent, control."""

import asyncio
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer

from consumer.blobs.relay.serve import Relays
from mesh import logging
from mesh.control import Control
from mesh.control.declare import InvalidDocument
from mesh.control.storage.database import check as check_database
from mesh.errors import InvalidInput
from mesh.gateway import GatewayOptions
from mesh.node import INTERRUPTED, engines, lifecycle, mesh_file, roles, serve
from mesh.node.cli import daemon_options
from mesh.node.cli.gateway import open_gateway, parse_gateways
from mesh.node.cli.options import (
    DEFAULT_DATA,
    DEFAULT_PREFETCH_BYTES,
    AllowNetwork,
    DataDir,
    Listen,
    LogFormat,
    LogUrl,
    PrefetchBytes,
    SharedLog,
    TokenRealm,
)
from mesh.node.demo import run as run_demo
from mesh.node.node import Node, default_log, open_node
from mesh.rules.validation import declarations
from schemas.names import Region


def _database(url: str | None) -> str | None:
    """Wrong use is told before anything is opened."""
    if url is not None:
        check_database(url)
    return url


Database = Annotated[
    str | None,
    typer.Option(
        envvar="REGMESH_DATABASE",
        help="The sync log's database, as SQLAlchemy names it.",
        metavar="URL",
        show_default="sqlite in the data directory",
        callback=_database,
    ),
]


RelayUrl = Annotated[
    str | None,
    typer.Option(
        envvar="REGMESH_RELAY_URL",
        help="Where agents of other regions reach this one, to be sent blobs; for a region that declares a relay.",
        metavar="URL",
        show_default="the region's relay.url; without one this agent sends nothing on",
    ),
]


def register(app: typer.Typer) -> None:
    for command in (up, demo, producer, agent, control):
        app.command()(command)


def up(
    file: Annotated[Path, typer.Option("--file", "-f", help="The mesh.yaml to declare.", show_default=False)],
    log: LogUrl = None,
    data: DataDir = DEFAULT_DATA,
    listen: Listen = "127.0.0.1:8080",
    database: Database = None,
    gateway: Annotated[
        list[str] | None,
        typer.Option(
            help="Also nearby access for a region's clients; again for more.", metavar="REGION=HOST:PORT"
        ),
    ] = None,
    allow_network: AllowNetwork = None,
    token_realm: TokenRealm = None,
    prefetch_bytes: PrefetchBytes = DEFAULT_PREFETCH_BYTES,
    log_format: LogFormat = "auto",
) -> None:
    """Run every role in one process, with FILE declared.

    It takes notifications, copies, keeps the sync log and serves the API. With the embedded log this is all a small
    site needs. What FILE no longer names stays declared until `regmesh delete` removes it.
    """
    daemon_options.set_up_logging(log_format)
    document = mesh_file.read(file)
    if engines.is_new(
        log or default_log(data)
    ):  # else what is declared already counts too, and is not known yet
        mesh_file.check(document)
    gateways = parse_gateways(gateway)

    async def main(stopping: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            node = await stack.enter_async_context(
                open_node(log, data, daemon_options.trust(allow_network, token_realm))
            )
            control = roles.control(node, database)
            intake, relays = roles.intake(node), Relays()
            url = await stack.enter_async_context(
                serve.listening(listen, node, [intake.routes, control.routes, relays.routes])
            )
            await _declare(node, control, document)
            for region, _ in gateways:
                _check_region(node, region)
            nearby = {
                region: await stack.enter_async_context(
                    open_gateway(node, region, at, GatewayOptions(), option="--gateway")
                )
                for region, at in gateways
            }
            _greet(node, url, document, nearby)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            beside = [
                group.create_task(control.run(), name="control"),
                group.create_task(roles.reconcile(node).run(), name="reconcile"),
                group.create_task(intake.run(), name="intake"),
            ]
            await roles.EveryRegion(node, relays, url, roles.settings(prefetch_bytes)).run(stopping)
            for task in beside:
                task.cancel()

    lifecycle.run(main)


def demo() -> None:
    """Show a release over nine regions, on embedded parts.

    It ends by itself within seconds, with a report that is checked.
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
    log_format: LogFormat = "auto",
) -> None:
    """Run an intake: registries' notifications go onto the log.

    So does what executions list. As many of these as wanted.
    """
    daemon_options.set_up_logging(log_format)
    trust = daemon_options.trust(allow_network, token_realm)

    async def main(stopping: asyncio.Event) -> None:
        async with open_node(daemon_options.shared(log), data, trust) as node:
            intake = roles.intake(node)
            async with serve.listening(listen, node, [intake.routes]), asyncio.TaskGroup() as group:
                listing = group.create_task(roles.reconcile(node).run(), name="reconcile")
                telling = group.create_task(intake.run(), name="intake")
                await stopping.wait()
                for task in (listing, telling):
                    task.cancel()

    lifecycle.run(main)


def agent(
    region: Annotated[
        str, typer.Option(help="The region whose registries this agent fills.", show_default=False)
    ],
    log: SharedLog = None,
    data: DataDir = DEFAULT_DATA,
    listen: Listen = "127.0.0.1:8082",
    relay_url: RelayUrl = None,
    allow_network: AllowNetwork = None,
    token_realm: TokenRealm = None,
    prefetch_bytes: PrefetchBytes = DEFAULT_PREFETCH_BYTES,
    log_format: LogFormat = "auto",
) -> None:
    """Run an agent: it fills REGION's registries.

    Agents of one region share the work.
    """
    daemon_options.set_up_logging(log_format)
    name = daemon_options.region(region)
    daemon_options.http_url("--relay-url", relay_url)
    trust = daemon_options.trust(allow_network, token_realm)

    async def main(stopping: asyncio.Event) -> None:
        relays = Relays()
        async with (
            open_node(daemon_options.shared(log), data, trust) as node,
            serve.listening(listen, node, [relays.routes]),
        ):
            running = roles.agent(node, name, roles.settings(prefetch_bytes), relays=relays, url=relay_url)
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
    log_format: LogFormat = "auto",
) -> None:
    """Run control: what is declared, sync log, webhooks, API."""
    daemon_options.set_up_logging(log_format)

    async def main(stopping: asyncio.Event) -> None:
        async with open_node(daemon_options.shared(log), data) as node:
            role = roles.control(node, database)
            async with serve.listening(listen, node, [role.routes]), asyncio.TaskGroup() as group:
                running = group.create_task(role.run(), name="control")
                await stopping.wait()
                running.cancel()

    lifecycle.run(main)


async def _declare(node: Node, control: Control, file: mesh_file.MeshFile) -> None:
    """Declare the file beside what the log holds already; with one problem nothing of it is declared."""
    await node.table.caught_up()
    try:
        changes = await control.apply(file.document)
    except InvalidDocument as error:
        raise mesh_file.InvalidFile(file.told(error.problems)) from error
    for change in changes:
        if change.note is not None:
            print(f"note: {change.key} {change.note}")


def _check_region(node: Node, region: Region) -> None:
    if node.state.region(region) is None:
        known = ", ".join(sorted(one.name for one in node.state.regions())) or "none"
        raise InvalidInput(f"--gateway: no region is named {region!r}; declared are: {known}")


def _greet(node: Node, url: str, file: mesh_file.MeshFile, gateways: Mapping[Region, str]) -> None:
    """Say where everything is, for whoever started this by hand."""
    print(f"regmesh is up at {url} with {file.path} declared (data in {node.data.absolute()})")
    for instance in node.state.instances():
        print(f"  instance {instance.name} in {instance.region}: {instance.url}")
        print(f"    its registry notifies {url}/v1/notifications/{instance.name}")
    for region, at in gateways.items():
        print(f"  gateway of {region}: {at}")
    named = {item.thing.key for item in declarations.judge(file.document)[0]}
    for thing in node.state.things():
        if thing.key not in named:
            noun, _, name = thing.key.partition("/")
            print(
                f"  {thing.key} is declared, but not by {file.path}: `regmesh delete {noun} {name}` removes it"
            )
    sys.stdout.flush()
