"""`regmesh gateway`: serves the clients of one region from their nearest places."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import typer

from mesh.gateway import GatewayOptions
from mesh.node import lifecycle, roles, serve
from mesh.node.addresses import parse_address
from mesh.node.cli import daemon_options
from mesh.node.cli.options import (
    DEFAULT_DATA,
    AllowNetwork,
    DataDir,
    Listen,
    LogFormat,
    SharedLog,
    TokenRealm,
    option,
)
from mesh.node.node import Node, open_node
from schemas.names import Region


def gateway(
    region: Annotated[str, option("The region whose clients pull from this gateway.")],
    domain: Annotated[
        str | None,
        option("The domain to serve, whatever the Host header says.", show_default="that of the Host header"),
    ] = None,
    behind_proxy: Annotated[
        bool, option("Trust X-Forwarded-Proto of a proxy that terminates TLS.", "--behind-proxy")
    ] = False,
    log: SharedLog = None,
    data: DataDir = DEFAULT_DATA,
    listen: Listen = "127.0.0.1:8083",
    allow_network: AllowNetwork = None,
    token_realm: TokenRealm = None,
    log_format: LogFormat = "auto",
) -> None:
    """Run a gateway: REGION's clients pull from the nearest place.

    That is the nearest healthy place in REGION's jurisdiction that holds the artifact. A gateway accepts no pushes and
    uses only the client's own credentials. Example: regmesh gateway --region shanghai --log kafka://kafka-1:9092
    """
    daemon_options.set_up_logging(log_format)
    name = daemon_options.parse_region(region)
    options = GatewayOptions(daemon_options.check_domain(domain), behind_proxy)
    trust = daemon_options.parse_trust(allow_network, token_realm)

    async def main(stopping: asyncio.Event) -> None:
        async with (
            open_node(daemon_options.require_shared_log(log), data, trust) as node,
            open_gateway(node, name, listen, options),
        ):
            await stopping.wait()

    lifecycle.run(main)


@asynccontextmanager
async def open_gateway(
    node: Node,
    region: Region,
    listen: str,
    options: GatewayOptions,
    *,
    listen_option: str = "--listen",
    listeners: int = 1,
) -> AsyncIterator[str]:
    """Runs a gateway until the block ends, then lets its pulls finish; yields its URL.

    `listeners` is how many listeners the process has.

    Raises:
        PortTaken: Another process listens on the address; `listen_option` is the option that the error names.
    """
    role = roles.gateway(node, region, options)
    async with (
        lifecycle.background(role.run()),
        serve.listening(listen, node, [role.routes], option=listen_option, listeners=listeners) as url,
    ):
        yield url


def parse_gateways(texts: list[str] | None) -> list[tuple[Region, str]]:
    """Returns region and address of each `--gateway REGION=HOST:PORT` of `regmesh up`.

    Raises:
        typer.BadParameter: One has another form.
        InvalidInput: Its address has another form.
    """
    found = []
    for text in texts or ():
        region, equals, listen = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"--gateway {text!r}: use REGION=HOST:PORT")
        parse_address(listen)
        found.append((daemon_options.parse_region(region), listen))
    return found
