"""`regmesh logs`: the sync log, as it is and as it grows."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mesh.node.options import Output, Server
from mesh.node.output import Format, print_table, show, size
from mesh.node.remote import Remote

_FOLLOW_SECONDS = 1.0


def register(app: typer.Typer) -> None:
    app.command()(logs)


def logs(
    rule: Annotated[str | None, typer.Option(help="Only of this rule.", show_default=False)] = None,
    replica: Annotated[
        str | None, typer.Option(help="Only of this replica (INSTANCE@REGION).", show_default=False)
    ] = None,
    repository: Annotated[
        str | None, typer.Option(help="Only of this repository.", show_default=False)
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Only of this tag.", show_default=False)] = None,
    status: Annotated[
        str | None,
        typer.Option(
            help="Succeed, Failed, Skipped or Stopped; InProgress or Pending (parked). Several with commas.",
            show_default=False,
        ),
    ] = None,
    execution: Annotated[str | None, typer.Option(help="Only of this execution.", show_default=False)] = None,
    since: Annotated[
        str | None,
        typer.Option(help="A time (2026-01-31T10:00:00Z) or how long ago (2h, 3d).", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at the most.")] = 100,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with new entries until interrupted.")
    ] = False,
    output: Output = Format.TABLE,
    server: Server = "http://127.0.0.1:8080",
) -> None:
    """The sync log: what was copied, from where to where, and what was not and why.

    Newest first; with --follow the newest come last.
    """
    wanted = {"rule": rule, "repository": repository, "tag": tag, "status": status}
    wanted |= {"replica": replica, "execution": execution, "since": since}
    query = {name: value for name, value in wanted.items() if value is not None}
    query["limit"] = str(min(limit, 1000))
    asyncio.run(_logs(Remote(server), query, limit, output, follow=follow))


async def _logs(remote: Remote, query: dict[str, str], limit: int, output: Format, *, follow: bool) -> None:
    entries = [entry async for entry in remote.pages("/api/v1/logs", query, most=limit)]
    if not follow:
        show(entries, _COLUMNS, output)
        return
    seen: dict[str, str] = {}
    while True:
        fresh = [entry for entry in reversed(entries) if seen.get(entry["task_id"]) != entry["status"]]
        if fresh:
            show(fresh, _COLUMNS, output) if output is not Format.TABLE or not seen else print_table(
                fresh, _COLUMNS
            )
        seen |= {entry["task_id"]: entry["status"] for entry in fresh}
        await asyncio.sleep(_FOLLOW_SECONDS)
        entries = [entry async for entry in remote.pages("/api/v1/logs", query, most=limit)]


def _why(entry: Mapping[str, Any]) -> str:
    error = entry.get("error")
    return f"{error['code']} ({error['side']}): {error['message']}" if error else ""


_COLUMNS = {
    "TIME": lambda entry: (entry["end_time"] or entry["start_time"])[:19].replace("T", " "),
    "STATUS": lambda entry: entry["status"],
    "SOURCE": lambda entry: entry["source"],
    "DESTINATION": lambda entry: entry["destination"],
    "SENT": lambda entry: size(entry["bytes_transferred"]),
    "OF": lambda entry: size(entry["bytes_total"]),
    "LAG": lambda entry: f"{entry['lag_ms'] / 1000:.1f} s" if entry["lag_ms"] is not None else "-",
    "TRIES": lambda entry: entry["attempts"],
    "WHY": _why,
}
