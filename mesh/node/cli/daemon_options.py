"""What the daemons' commands make of their options, before anything runs."""

import sys

import typer
from pydantic import TypeAdapter, ValidationError

from mesh import logging
from mesh.errors import InvalidInput
from mesh.node.addresses import is_http_url
from mesh.node.node import Trust
from mesh.registry.auth import parse_realms
from mesh.registry.egress import parse_networks
from schemas.names import Region
from schemas.topology import Domain


def trust(networks: list[str] | None, realms: list[str] | None) -> Trust:
    """Both come from options, or from the environment with blanks between several."""
    parse_networks(networks or ())  # what is wrong is said at the start, not at the first redirect
    parse_realms(realms or ())
    return Trust(tuple(networks or ()), tuple(realms or ()))


def shared(log: str | None) -> str:
    if log is None:
        raise InvalidInput(
            "a daemon needs the log it shares with the others: --log kafka://HOST:PORT "
            "(for everything in one process on an embedded log there is `regmesh up`)"
        )
    return log


def region(name: str) -> Region:
    try:
        return Region(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def domain(name: str | None) -> str | None:
    try:
        return name if name is None else TypeAdapter(Domain).validate_python(name)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise typer.BadParameter(f"--domain {name!r}: {reason}") from error


def http_url(option: str, text: str | None) -> str | None:
    if text is not None and not is_http_url(text):
        raise typer.BadParameter(f"{option} {text!r} is no URL: use http://HOST:PORT")
    return text


def set_up_logging(style: str) -> None:
    if style not in ("auto", "json", "text"):
        raise typer.BadParameter(f"--log-format {style!r}: use json, text or auto")
    logging.set_up(json=style == "json" or (style == "auto" and not sys.stderr.isatty()))
