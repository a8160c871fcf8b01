"""`regmesh usage`: how many bytes were sent, for whom, by what, and along which links."""

from typing import Annotated

import typer

from mesh.node.cli.options import Output, Server
from mesh.node.cli.output import Columns, Format, print_table, show, size
from mesh.node.cli.remote import Remote


def register(app: typer.Typer) -> None:
    app.command()(usage)


def usage(
    since: Annotated[
        str | None,
        typer.Option(
            help="Of tasks that ended since a time (2026-01-31T10:00:00Z) or so long ago (7d); else of all.",
            show_default=False,
        ),
    ] = None,
    output: Output = Format.TABLE,
    server: Server = "http://127.0.0.1:8080",
) -> None:
    """Sum up the bytes of blobs that were sent.

    By account (the source's), by rule or replica, and by link. A link goes from the region that sent the bytes,
    which need not be the source's own.
    """
    found = Remote(server).call("GET", "/api/v1/usage", query={"since": since} if since is not None else None)
    if output is not Format.TABLE:
        show([found], _ACCOUNTS, output, one=True)
        return
    for at, (part, columns) in enumerate(_TABLES.items()):
        if at:
            print()
        print_table(found[part], columns)


_ACCOUNTS: Columns = {
    "ACCOUNT": lambda it: it["account"],
    "SENT": lambda it: size(it["bytes"]),
    "TASKS": lambda it: it["tasks"],
}
_TABLES: dict[str, Columns] = {
    "accounts": _ACCOUNTS,
    "rules": {
        "RULE": lambda it: it["rule"],
        "REPLICA": lambda it: it["replica"],
        "SENT": lambda it: size(it["bytes"]),
        "TASKS": lambda it: it["tasks"],
    },
    "links": {
        "FROM": lambda it: it["from"],
        "TO": lambda it: it["to"],
        "SENT": lambda it: size(it["bytes"]),
    },
}
