"""`regmesh up`: every role in one process."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

from consumer.blobs.relay.serve import Relays
from mesh.concurrency import finishes
from mesh.control import Control, InvalidDocument
from mesh.errors import InvalidInput
from mesh.gateway import GatewayOptions
from mesh.node import engines, lifecycle, mesh_file, roles, serve
from mesh.node.cli import daemon_options
from mesh.node.cli.daemons import Database
from mesh.node.cli.gateway import open_gateway, parse_gateways
from mesh.node.cli.options import (
    DEFAULT_DATA,
    AllowNetwork,
    ApiHost,
    ApiOpen,
    DataDir,
    IntakeListen,
    Listen,
    LogFormat,
    LogUrl,
    PrefetchBytes,
    TokenRealm,
    option,
)
from mesh.node.node import Node, default_log, open_node
from mesh.retry import until_log_available
from mesh.rules.validation import declarations
from producer import known_instances
from schemas.names import Region


def up(
    file: Annotated[Path, option("The mesh.yaml to declare.", "--file", "-f")],
    log: LogUrl = None,
    data: DataDir = DEFAULT_DATA,
    listen: Listen = "127.0.0.1:8080",
    intake_listen: IntakeListen = None,
    api_open: ApiOpen = False,
    api_host: ApiHost = None,
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
    may_wait = log is not None and known_instances.exist(roles.known_instances_file(data))
    access = daemon_options.parse_api_access(api_open, api_host, listen)

    async def main(stopping: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            node = await stack.enter_async_context(open_node(log, data, trust, connect=not may_wait))
            control, relays = roles.control(node, database, access), Relays()
            intake = await stack.enter_async_context(roles.intake(node))
            listeners = 1 + (intake_listen is not None) + len(gateways)
            served = [control.routes, relays.routes] + ([intake.routes] if intake_listen is None else [])
            url = await stack.enter_async_context(
                serve.listening(
                    listen, node, served, listeners=listeners, not_ready=intake.not_ready,
                    notes=lambda: [*intake.notes(), *control.notes()],
                )
            )  # fmt: skip
            intake_url = url
            if intake_listen is not None:
                intake_url = await stack.enter_async_context(
                    serve.listening(
                        intake_listen, node, [intake.routes],
                        option="--intake-listen", listeners=listeners, metrics=False,
                        not_ready=intake.not_ready, notes=intake.notes,
                    )
                )  # fmt: skip
            await stack.enter_async_context(lifecycle.background(intake.run()))
            if not await finishes(_declare(node, control, document), stopping):
                return
            urls = await _open_gateways(stack, node, gateways, listeners)
            _print_addresses(node, url, intake_url, document, urls)
            async with lifecycle.background(control.run(), roles.reconcile(node).run()):
                agents = roles.EveryRegion(node, relays, url, roles.agent_settings(node, prefetch_bytes))
                await agents.run(stopping)

    lifecycle.run(main)


async def _declare(node: Node, control: Control, file: mesh_file.MeshFile) -> None:
    """Declares the file beside what the log holds already, or nothing of it when it has one problem."""
    await until_log_available(node.table.caught_up, node.clock)
    try:
        changes = await until_log_available(lambda: control.apply(file.document), node.clock)
    except InvalidDocument as error:
        raise mesh_file.InvalidFile(file.format_problems(error.problems)) from error
    for change in changes:
        if change.note is not None:
            print(f"note: {change.key} {change.note}")


async def _open_gateways(
    stack: AsyncExitStack, node: Node, gateways: Sequence[tuple[Region, str]], listeners: int
) -> dict[Region, str]:
    """Runs the gateways until `stack` is closed; returns their URLs."""
    for region, _ in gateways:
        _check_region(node, region)
    return {
        region: await stack.enter_async_context(
            open_gateway(
                node, region, address, GatewayOptions(), listen_option="--gateway", listeners=listeners
            )
        )
        for region, address in gateways
    }


def _check_region(node: Node, region: Region) -> None:
    if node.state.region(region) is None:
        known = ", ".join(sorted(one.name for one in node.state.regions())) or "none"
        raise InvalidInput(f"--gateway: no region is named {region!r}; declared are: {known}")


def _print_addresses(
    node: Node, url: str, intake_url: str, file: mesh_file.MeshFile, gateways: Mapping[Region, str]
) -> None:
    print(f"regmesh is up at {url} with {file.path} declared (data in {node.data.absolute()})")
    for instance in node.state.instances():
        print(f"  instance {instance.name} in {instance.region}: {instance.url}")
        print(f"    its registry sends notifications to {intake_url}/v1/notifications/{instance.name}")
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
