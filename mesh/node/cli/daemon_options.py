"""Checks and parses options of the daemons before anything is opened."""

import re
import sys
from pathlib import Path

import structlog
import typer
from pydantic import TypeAdapter, ValidationError

from mesh import logging
from mesh.control import ApiAccess
from mesh.credentials.hosts import hosts_named_by
from mesh.errors import InvalidInput
from mesh.loopback import is_loopback
from mesh.node import mesh_file
from mesh.node.addresses import is_http_url, parse_address
from mesh.node.mesh_file import MeshFile
from mesh.node.node import Trust
from mesh.registry.auth import parse_realms
from mesh.registry.egress import parse_networks
from mesh.rules.validation import declarations
from schemas.names import Region
from schemas.topology import Domain

LOG = structlog.get_logger()

_HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.ASCII | re.IGNORECASE)


def parse_trust(
    networks: list[str] | None, realms: list[str] | None, secrets_for: MeshFile | None = None
) -> Trust:
    """Returns the values of --allow-network and --token-realm, and what the operator's mesh file names for secrets.

    Raises:
        InvalidInput: One is not a CIDR, or not a URL; or a URL of the file has no usable host.
    """
    parse_networks(networks or ())
    parse_realms(realms or ())
    placed = declarations.judge(secrets_for.document)[0] if secrets_for is not None else []
    return Trust(tuple(networks or ()), tuple(realms or ()), hosts_named_by(item.thing for item in placed))


def read_mesh_file(file: Path | None) -> MeshFile | None:
    """Returns the mesh file that an option names, if any.

    Raises:
        InvalidFile: It cannot be read, or has problems by itself.
    """
    if file is None:
        return None
    found = mesh_file.read(file)
    mesh_file.check(found)
    return found


def require_shared_log(log: str | None) -> str:
    """Returns the URL of the log.

    Raises:
        InvalidInput: There is none. The help of --log says so too: Typer's own error would name no example.
    """
    if log is None:
        raise InvalidInput(
            "a daemon needs the log that all daemons share: --log kafka://HOST:PORT "
            "(`regmesh up` runs everything in one process on an embedded log)"
        )
    return log


def parse_region(name: str) -> Region:
    """Returns the name as a region's.

    Raises:
        typer.BadParameter: It is not a valid name.
    """
    try:
        return Region(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def check_domain(name: str | None) -> str | None:
    """Returns the value of --domain.

    Raises:
        typer.BadParameter: It is not a host name.
    """
    try:
        return name if name is None else TypeAdapter(Domain).validate_python(name)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise typer.BadParameter(f"--domain {name!r}: {reason}") from error


def parse_api_access(is_open: bool, hosts: list[str] | None, listen: str) -> ApiAccess:
    """Returns who may call the API, from --api-open and --api-host; logs a note when `listen` suggests more callers.

    Raises:
        typer.BadParameter: A host is no host name, for instance because it has a port.
    """
    for host in hosts or ():
        if not _HOST_NAME.fullmatch(host):
            raise typer.BadParameter(
                f"--api-host {host!r} is not a host name: use NAME, without scheme and port"
            )
    if not is_open and not is_loopback(parse_address(listen)[0]):
        LOG.info(
            "the API answers only callers on this machine; --api-open answers others too",
            action="api_local_only",
            listen=listen,
        )
    return ApiAccess(is_open, frozenset(host.lower() for host in hosts or ()))


def check_http_url(option: str, text: str | None) -> None:
    """Checks the URL that an option names, if any.

    Raises:
        typer.BadParameter: It is not an HTTP URL.
    """
    if text is not None and not is_http_url(text):
        raise typer.BadParameter(f"{option} {text!r} is not a URL: use http://HOST:PORT")


def set_up_logging(style: str) -> None:
    """Sets up the log lines of the process as --log-format says.

    Raises:
        typer.BadParameter: There is no such format.
    """
    if style not in ("auto", "json", "text"):
        raise typer.BadParameter(f"--log-format {style!r}: use json, text or auto")
    logging.set_up(json=style == "json" or (style == "auto" and not sys.stderr.isatty()))
