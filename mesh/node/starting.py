"""What the daemons' commands make of their options, before anything runs."""

import sys

import typer

from mesh import logging
from mesh.errors import InvalidInput
from mesh.node.node import Trust
from mesh.registry.auth import parse_realms
from mesh.registry.egress import parse_networks
from schemas.names import Region


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


def set_up_logging(style: str) -> None:
    if style not in ("auto", "json", "text"):
        raise typer.BadParameter(f"--log-format {style!r}: use json, text or auto")
    logging.set_up(json=style == "json" or (style == "auto" and not sys.stderr.isatty()))
