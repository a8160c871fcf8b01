"""`regmesh logs`: the sync log, as it is and as it grows."""

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

import typer

from mesh.node.cli.options import Server, WideOutput
from mesh.node.cli.output import Columns, Format, WideFormat, print_table, show, size
from mesh.node.cli.remote import Refused, Remote, Unanswered, path

_FOLLOW_SECONDS = 1.0
_OVERLAP = 100  # entries in a row that were shown already: what comes late from a region lies before them
_MOST_REMEMBERED = 100_000


def register(app: typer.Typer) -> None:
    app.command()(logs)


def logs(
    rule: Annotated[str | None, typer.Option(help="Only of this rule.", show_default=False)] = None,
    replica: Annotated[
        str | None, typer.Option(help="Only of this replica (INSTANCE@REGION).", show_default=False)
    ] = None,
    repository: Annotated[
        str | None,
        typer.Option(
            help="Only of this repository: a name or a pattern, without its instance.", show_default=False
        ),
    ] = None,
    tag: Annotated[
        str | None, typer.Option(help="Only of this tag: a name or a pattern.", show_default=False)
    ] = None,
    digest: Annotated[
        str | None, typer.Option(help="Only of this digest (sha256:...), whole.", show_default=False)
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(
            help="Succeed, Failed, Skipped or Stopped; InProgress or Pending (parked). Several with commas.",
            show_default=False,
        ),
    ] = None,
    region: Annotated[
        str | None, typer.Option(help="Only from or to this region.", show_default=False)
    ] = None,
    execution: Annotated[str | None, typer.Option(help="Only of this execution.", show_default=False)] = None,
    since: Annotated[
        str | None,
        typer.Option(help="A time (2026-01-31T10:00:00Z) or how long ago (2h, 3d).", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at the most.")] = 100,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new entries until interrupted.")
    ] = False,
    output: WideOutput = WideFormat.TABLE,
    server: Server = "http://127.0.0.1:8080",
) -> None:
    """Show the sync log: what was copied, and what was not and why.

    Newest first; with --follow the newest come last. Times are UTC. What the options ask for must all hold; patterns
    are as in rules. -o wide shows the ids of tasks, digests, regions and bytes too; -o json all of it.
    """
    wanted = {"rule": rule, "replica": replica, "repository": repository, "tag": tag, "digest": digest}
    wanted |= {"status": status, "region": region, "execution": execution, "since": since}
    query = {name: value for name, value in wanted.items() if value is not None}
    query["limit"] = str(min(limit, 1000))
    columns = _WIDE if output is WideFormat.WIDE else _COLUMNS
    asyncio.run(_logs(Remote(server), query, limit, output.style, columns, follow=follow))


async def _logs(
    remote: Remote, query: dict[str, str], limit: int, output: Format, columns: Columns, *, follow: bool
) -> None:
    if not follow:
        found = [entry async for entry in remote.pages("/api/v1/logs", query, most=limit)]
        show(found, columns, output)
        if not found:
            await _tell_what_is_not_declared(remote, query)
        return
    following = _Following(remote, query | {"limit": str(min(max(limit, _OVERLAP), 1000))})
    entries = await following.begin(limit)
    header = True
    while True:
        if entries and output is Format.TABLE:
            print_table(entries, columns, header=header)
            header = False
        elif entries:
            show(entries, columns, output)
        await asyncio.sleep(_FOLLOW_SECONDS)
        try:
            entries = await following.fresh()
        except Unanswered:
            entries = []  # it answered before, so it may be starting again


async def _tell_what_is_not_declared(remote: Remote, query: Mapping[str, str]) -> None:
    """A name that is misspelt finds nothing; what was declared once may be asked for, so it is no error."""
    for kind in ("rule", "replica", "region", "execution"):
        if (name := query.get(kind)) is None:
            continue
        try:
            await remote.ask("GET", path(f"{kind}s", name))
        except Refused as error:
            print(f"regmesh: {error}", file=sys.stderr)


@dataclass(slots=True)
class _Following:
    """What of the log was shown. However much ends between two looks, the next one finds all of it."""

    remote: Remote
    query: Mapping[str, str]
    seen: OrderedDict[str, str] = field(default_factory=OrderedDict)  # statuses by task
    since: datetime | None = None  # what ended before it was there at the beginning, and not asked for

    async def begin(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """The newest `limit`, the newest last; those just before them may still get company, and are remembered too."""
        wanted = max(limit, _OVERLAP)
        found = [entry async for entry in self.remote.pages("/api/v1/logs", self.query, most=wanted)]
        self._remember(found)
        if len(found) == wanted:
            self.since = _moment(found[-1])
        return found[:limit][::-1]

    async def fresh(self) -> Sequence[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        known = 0
        async with aclosing(self.remote.pages("/api/v1/logs", self.query, most=None)) as entries:
            async for entry in entries:
                if known >= _OVERLAP or (self.since is not None and _moment(entry) < self.since):
                    break
                if self.seen.get(entry["task_id"]) == entry["status"]:
                    known += 1
                else:
                    found.append(entry)
                    known = 0
        self._remember(found)
        return found[::-1]

    def _remember(self, newest_first: Sequence[Mapping[str, Any]]) -> None:
        for entry in reversed(newest_first):
            self.seen[entry["task_id"]] = entry["status"]
            self.seen.move_to_end(entry["task_id"])
        while len(self.seen) > _MOST_REMEMBERED:
            self.seen.popitem(last=False)


def _moment(entry: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(entry["end_time"] or entry["start_time"])


def _why(entry: Mapping[str, Any]) -> str:
    error = entry.get("error")
    return f"{error['code']} ({error['side']}): {error['message']}" if error else ""


def _time(entry: Mapping[str, Any]) -> str:
    return str(entry["end_time"] or entry["start_time"])[:19].replace("T", " ")


def _lag(entry: Mapping[str, Any]) -> str | None:
    return f"{entry['lag_ms'] / 1000:.1f} s" if entry["lag_ms"] is not None else None


def _bytes(count: int | None) -> str | None:
    return size(count) if count is not None else None  # of what has not ended


_COLUMNS: Columns = {
    "TIME": _time,
    "STATUS": lambda entry: entry["status"],
    "OPERATION": lambda entry: entry["operation"],
    "SOURCE": lambda entry: entry["source"],
    "DESTINATION": lambda entry: entry["destination"],
    "SENT": lambda entry: size(entry["bytes_transferred"]),
    "OF": lambda entry: size(entry["bytes_total"]),
    "LAG": _lag,
    "TRIES": lambda entry: entry["attempts"],
    "WHY": _why,
}

_WIDE: Columns = {
    **{name: value for name, value in _COLUMNS.items() if name != "WHY"},
    "THERE": lambda entry: _bytes(entry["bytes_skipped"]),
    "MOUNTED": lambda entry: entry["blobs_mounted"],
    "TYPE": lambda entry: entry["resource_type"],
    "BY": lambda entry: entry["rule"] or entry["replica"],
    "TRIGGER": lambda entry: entry["trigger"],
    "FROM": lambda entry: entry["source_region"],
    "TO": lambda entry: entry["destination_region"],
    "ORIGIN": lambda entry: entry["origin"],
    "HOPS": lambda entry: entry["hops"],
    "DIGEST": lambda entry: entry["digest"],
    "TASK": lambda entry: entry["task_id"],
    "EXECUTION": lambda entry: entry["execution_id"],
    "WHY": _why,
}
