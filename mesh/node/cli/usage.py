"""`regmesh usage`: bytes sent, by account, by rule or replica, and by link."""

from typing import Annotated

from mesh.node.cli.control_client import ControlClient
from mesh.node.cli.options import DEFAULT_SERVER, Output, Server, option
from mesh.node.cli.output import Columns, Format, fields, print_table, show, size

_SENT: Columns = {"SENT": lambda it: size(it["bytes"])}
_TABLES: dict[str, Columns] = {
    "accounts": {**fields("account"), **_SENT, **fields("tasks")},
    "rules": {**fields("rule", "replica"), **_SENT, **fields("tasks")},
    "links": {**fields("from", "to"), **_SENT},
}


def usage(
    since: Annotated[
        str | None,
        option("Count tasks that ended since a time (2026-01-31T10:00:00Z) or within an age (7d); else all."),
    ] = None,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Show how many bytes of blobs were sent.

    There are three tables: by account of the source, by rule or replica, and by link. A link starts at the region that
    sent the bytes, which may be a relay instead of the source. Example: regmesh usage --since 7d
    """
    query = {"since": since} if since is not None else None
    found = ControlClient(server).call("GET", "/api/v1/usage", query=query)
    if output is not Format.TABLE:
        show([found], {}, output, one=True)
        return
    for number, (part, columns) in enumerate(_TABLES.items()):
        if number:
            print()
        print_table(found[part], columns)
