"""`regmesh doctor`: problems of the mesh, each with what to do about it."""

import typer

from mesh.node.cli.control_client import ControlClient
from mesh.node.cli.options import DEFAULT_SERVER, Output, Server
from mesh.node.cli.output import Columns, Format, fields, show

_COLUMNS: Columns = {
    **fields("severity"),
    "SUBJECT": lambda it: it["about"],
    "FINDING": lambda it: it["message"],
    **fields("advice"),
}


def doctor(output: Output = Format.TABLE, server: Server = DEFAULT_SERVER) -> None:
    """Show what is wrong with the mesh, and what to do about it.

    Checks agents, registries, rules, failed tasks, webhooks, refused notifications and dead letters. Exits with 1 when
    there is a problem. `regmesh get dead-letters -o json` shows records that could not be read, and `regmesh delete
    dead-letter ID` dismisses one.
    """
    findings = ControlClient(server).call("GET", "/api/v1/doctor")["items"]
    if findings or output is not Format.TABLE:
        show(findings, _COLUMNS, output)
    else:
        print("nothing is wrong")
    if any(finding["severity"] == "problem" for finding in findings):
        raise typer.Exit(1)
