"""`regmesh gateway`: nearby access for the clients of one region."""

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
)
from mesh.node.node import Node, open_node
from schemas.names import Region


def register(app: typer.Typer) -> None:
    app.command()(gateway)


def gateway(
    region: Annotated[str, typer.Option(help="The region whose clients pull here.", show_default=False)],
    domain: Annotated[
        str | None,
        typer.Option(
            help="The domain to serve, whatever the Host header says.", show_default="as the Host header says"
        ),
    ] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="Believe X-Forwarded-Proto: a proxy in front ends TLS.")
    ] = False,
    log: SharedLog = None,
    data: DataDir = DEFAULT_DATA,
    listen: Listen = "127.0.0.1:8083",
    allow_network: AllowNetwork = None,
    token_realm: TokenRealm = None,
    log_format: LogFormat = "auto",
) -> None:
    """Run a gateway: REGION's clients pull from the nearest place.

    That is the nearest healthy one in REGION's jurisdiction that holds the artifact. Nothing can be pushed here, and no
    credentials but the client's are used.
    """
    daemon_options.set_up_logging(log_format)
    name, options = daemon_options.region(region), GatewayOptions(daemon_options.domain(domain), behind_proxy)
    trust = daemon_options.trust(allow_network, token_realm)

    async def main(stopping: asyncio.Event) -> None:
        async with (
            open_node(daemon_options.shared(log), data, trust) as node,
            open_gateway(node, name, listen, options),
        ):
            await stopping.wait()

    lifecycle.run(main)


@asynccontextmanager
async def open_gateway(
    node: Node, region: Region, listen: str, options: GatewayOptions, *, option: str = "--listen"
) -> AsyncIterator[str]:
    """A gateway that serves until the block ends, and then its running pulls to their end; gives its URL."""
    role = roles.gateway(node, region, options)
    async with asyncio.TaskGroup() as group:
        looking = group.create_task(role.run(), name=f"gateway {region}")
        async with serve.listening(listen, node, [role.routes], option=option) as url:
            yield url
        looking.cancel()


def parse_gateways(texts: list[str] | None) -> list[tuple[Region, str]]:
    """Each `REGION=HOST:PORT` of `regmesh up --gateway`; `BadParameter` for what is none."""
    found = []
    for text in texts or ():
        region, equals, listen = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"--gateway {text!r}: use REGION=HOST:PORT")
        parse_address(listen)
        found.append((daemon_options.region(region), listen))
    return found
