"""Options that several commands share, so that they are named and described alike everywhere."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mesh.node.addresses import parse_address
from mesh.node.cli.output import Format, WideFormat

DEFAULT_SERVER = "http://127.0.0.1:8080"
DEFAULT_DATA = Path("regmesh-data")


def option(text: str, *names: str, **more: Any) -> Any:
    """Declares an option with its help text; the help shows no default."""
    return typer.Option(*names, help=text, **{"show_default": False} | more)


def argument(text: str, metavar: str | None = None) -> Any:
    """Declares an argument with its help text; the help shows no default."""
    return typer.Argument(help=text, metavar=metavar, show_default=False)


def _check_address(text: str) -> str:
    """A callback: a wrong address ends the command before anything is opened."""
    parse_address(text)
    return text


def _check_optional_address(text: str | None) -> str | None:
    return text if text is None else _check_address(text)


Server = Annotated[
    str, option("The URL of control's API.", "--server", envvar="REGMESH_SERVER", metavar="URL", show_default=True)
]  # fmt: skip
Output = Annotated[Format, option("The format of the output.", "--output", "-o", show_default=True)]
WideOutput = Annotated[
    WideFormat,
    option(
        "The format of the output; wide is a table with more columns.", "--output", "-o", show_default=True
    ),
]
LogUrl = Annotated[
    str | None,
    option(
        "The log: sqlite:///PATH, or kafka://HOST:PORT[,HOST:PORT][?security_protocol=...].",
        "--log",
        envvar="REGMESH_LOG",
        metavar="URL",
        show_default="sqlite in the data directory",
    ),
]
SharedLog = Annotated[
    str | None,
    option(
        "The log that all daemons share: kafka://HOST:PORT[,HOST:PORT][?security_protocol=...].  [required]",
        "--log",
        envvar="REGMESH_LOG",
        metavar="URL",
    ),
]
DataDir = Annotated[
    Path,
    option("The directory of this node's files.", "--data", envvar="REGMESH_DATA", metavar="DIR", show_default=True),
]  # fmt: skip
Listen = Annotated[
    str,
    option(
        "The address to serve HTTP on.",
        "--listen",
        envvar="REGMESH_LISTEN",
        metavar="HOST:PORT",
        callback=_check_address,
        show_default=True,
    ),
]
IntakeListen = Annotated[
    str | None,
    option(
        "The address on which registries notify the intake, which is then not served on --listen.",
        "--intake-listen",
        envvar="REGMESH_INTAKE_LISTEN",
        metavar="HOST:PORT",
        callback=_check_optional_address,
        show_default="that of --listen",
    ),
]
ApiOpen = Annotated[
    bool,
    option(
        "Answer API calls of other machines and of proxies; by default only this machine's.",
        "--api-open",
        envvar="REGMESH_API_OPEN",
    ),
]
ApiHost = Annotated[
    list[str] | None,
    option(
        "A host name by which the API is called, besides localhost and IP addresses; repeat for more.",
        "--api-host",
        envvar="REGMESH_API_HOSTS",
        metavar="NAME",
    ),
]
LogFormat = Annotated[
    str,
    option(
        "The format of log lines: json, text, or auto (text on a terminal, else json).",
        "--log-format",
        envvar="REGMESH_LOG_FORMAT",
        metavar="FORMAT",
        show_default=True,
    ),
]
AllowNetwork = Annotated[
    list[str] | None,
    option(
        "A private network that registries may redirect to, such as 10.0.0.0/8; repeat for more.",
        "--allow-network",
        envvar="REGMESH_ALLOW_NETWORKS",
        metavar="CIDR",
    ),
]
TokenRealm = Annotated[
    list[str] | None,
    option(
        "A token server on another host than its registry, such as https://auth.example.com; repeat for more.",
        "--token-realm",
        envvar="REGMESH_TOKEN_REALMS",
        metavar="URL",
    ),
]
SecretsFor = Annotated[
    Path | None,
    option(
        "The mesh.yaml that is applied: the hosts that it names with a secret may get that secret.",
        "--secrets-for",
        envvar="REGMESH_SECRETS_FOR",
        metavar="FILE",
        show_default="only REGMESH_SECRET_<NAME>_HOSTS",
    ),
]
PrefetchBytes = Annotated[
    int | None,
    option(
        "The most bytes of layers that all agents of a region prefetch, before any manifest names them; 0 for none.",
        "--prefetch-bytes",
        envvar="REGMESH_PREFETCH_BYTES",
        min=0,
        metavar="BYTES",
        show_default="10737418240",
    ),
]
