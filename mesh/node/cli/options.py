"""Options that several commands share, so that they read the same everywhere."""

from pathlib import Path
from typing import Annotated

import typer

from mesh.node.addresses import parse_address
from mesh.node.cli.output import Format, WideFormat

Server = Annotated[
    str, typer.Option("--server", envvar="REGMESH_SERVER", help="Where control's API is.", metavar="URL")
]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to print it.")]
WideOutput = Annotated[
    WideFormat, typer.Option("--output", "-o", help="How to print it; wide is a table with more columns.")
]
LogUrl = Annotated[
    str | None,
    typer.Option(
        "--log",
        envvar="REGMESH_LOG",
        help="The log: sqlite:///PATH, or kafka://HOST:PORT[,HOST:PORT][?security_protocol=...].",
        metavar="URL",
        show_default="sqlite in the data directory",
    ),
]
SharedLog = Annotated[
    str | None,
    typer.Option(
        "--log",
        envvar="REGMESH_LOG",
        help="The log that all daemons share: kafka://HOST:PORT[,HOST:PORT][?security_protocol=...].  [required]",
        metavar="URL",
        show_default=False,
    ),
]


def _address(text: str) -> str:
    """Wrong use is told before anything is opened."""
    parse_address(text)
    return text


DataDir = Annotated[
    Path,
    typer.Option("--data", envvar="REGMESH_DATA", help="Where this node keeps its files.", metavar="DIR"),
]
Listen = Annotated[
    str,
    typer.Option(
        "--listen",
        envvar="REGMESH_LISTEN",
        help="Where to serve HTTP.",
        metavar="HOST:PORT",
        callback=_address,
    ),
]
LogFormat = Annotated[
    str,
    typer.Option(
        "--log-format",
        envvar="REGMESH_LOG_FORMAT",
        help="json, text, or auto: text on a terminal.",
        metavar="FORMAT",
    ),
]
AllowNetwork = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-network",
        envvar="REGMESH_ALLOW_NETWORKS",
        help="A private network (CIDR) that registries may redirect to; again for more.",
        metavar="CIDR",
        show_default=False,
    ),
]
TokenRealm = Annotated[
    list[str] | None,
    typer.Option(
        "--token-realm",
        envvar="REGMESH_TOKEN_REALMS",
        help="A token server on another host than its registry, such as https://auth.example.com; again for more.",
        metavar="URL",
        show_default=False,
    ),
]
PrefetchBytes = Annotated[
    int,
    typer.Option(
        "--prefetch-bytes",
        envvar="REGMESH_PREFETCH_BYTES",
        min=0,
        help="How many bytes of layers a region's agents together copy ahead of their manifests; 0 copies none.",
        metavar="BYTES",
    ),
]
DEFAULT_PREFETCH_BYTES = 10 * 1024**3
DEFAULT_DATA = Path("regmesh-data")
