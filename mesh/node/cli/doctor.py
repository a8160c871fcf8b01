"""`regmesh doctor`: what is wrong with the mesh, and what to do about it."""

import typer

from mesh.node.cli.options import Output, Server
from mesh.node.cli.output import Columns, Format, show
from mesh.node.cli.remote import Remote

_COLUMNS: Columns = {
    "SEVERITY": lambda it: it["severity"],
    "ABOUT": lambda it: it["about"],
    "WHAT": lambda it: it["message"],
    "DO": lambda it: it["advice"],
}

DEAD_LETTERS: Columns = {
    "ID": lambda it: it["id"],
    "TIME": lambda it: it["time"][:19].replace("T", " "),
    "REGION": lambda it: it["region"],
    "FROM": lambda it: it["position"],
    "BYTES": lambda it: it["size"],
    "TIMES": lambda it: it["count"],
    "REASON": lambda it: it["reason"],
}


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(output: Output = Format.TABLE, server: Server = "http://127.0.0.1:8080") -> None:
    """Say what is wrong with the mesh, and what to do about it.

    It looks at agents, registries, rules, failed tasks, webhooks, refused and unreadable notifications, and exits 1
    when something is wrong. `regmesh get dead-letters -o json` shows whole what could not be read (dead letters);
    `regmesh delete dead-letter ID`, or `delete dead-letters --all`, says that it is dealt with.
    """
    findings = Remote(server).call("GET", "/api/v1/doctor")["items"]
    if findings or output is not Format.TABLE:
        show(findings, _COLUMNS, output)
    else:
        print("nothing is wrong")
    if any(finding["severity"] == "problem" for finding in findings):
        raise typer.Exit(1)
