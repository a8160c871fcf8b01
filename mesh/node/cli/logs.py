"""`regmesh logs`: entries of the sync log, once or as they are added."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Annotated

from cachetools import LRUCache

from mesh.node.cli.control_client import ApiError, ApiUnreachable, ControlClient, api_path
from mesh.node.cli.options import DEFAULT_SERVER, Server, WideOutput, option
from mesh.node.cli.output import Columns, Format, Item, WideFormat, fields, lag, print_table, show, size, time

_FOLLOW_SECONDS = 1.0
_OVERLAP = 100  # known entries in a row that end a look: entries that a region delivers late come before them
_MAX_REMEMBERED = 100_000


def logs(
    rule: Annotated[str | None, option("Only entries of this rule.")] = None,
    replica: Annotated[str | None, option("Only entries of this replica (INSTANCE@REGION).")] = None,
    repository: Annotated[
        str | None, option("Only this repository, without its instance: a name or a pattern such as game/**.")
    ] = None,
    tag: Annotated[str | None, option("Only this tag: a name or a pattern such as v1.*.")] = None,
    digest: Annotated[str | None, option("Only this digest (sha256:...), in full.")] = None,
    status: Annotated[
        str | None,
        option("Succeed, Failed, Skipped, Stopped, InProgress or Pending (parked); several with commas."),
    ] = None,
    region: Annotated[str | None, option("Only copies from or to this region.")] = None,
    execution: Annotated[str | None, option("Only entries of this execution.")] = None,
    since: Annotated[
        str | None, option("Only entries since a time (2026-01-31T10:00:00Z) or within an age (2h, 3d).")
    ] = None,
    limit: Annotated[int, option("The most entries to show.", min=1, show_default=True)] = 100,
    follow: Annotated[bool, option("Show new entries until interrupted.", "--follow", "-f")] = False,
    output: WideOutput = WideFormat.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Show the sync log: what was copied, and what was not and why.

    The newest entries come first, with --follow last. An entry matches all options that are given; patterns are those
    of rules. -o wide also shows ids of tasks, digests, regions and bytes, -o json every field. Times are UTC. Example:
    regmesh logs --rule release-to-eu --status Failed --since 2h
    """
    query = {"rule": rule, "replica": replica, "repository": repository, "tag": tag, "digest": digest}
    query |= {"status": status, "region": region, "execution": execution, "since": since}
    given = {name: value for name, value in query.items() if value is not None}
    columns = _WIDE if output is WideFormat.WIDE else _COLUMNS
    control = ControlClient(server)
    if follow:
        asyncio.run(_follow(control, given, limit, output.style, columns))
        return
    found = control.items("/api/v1/logs", given | {"limit": str(min(limit, 1000))}, most=limit)
    show(found, columns, output.style)
    if not found:
        _warn_of_undeclared(control, given)


async def _follow(
    control: ControlClient, query: dict[str, str], limit: int, output: Format, columns: Columns
) -> None:
    follower = _Follower(control, query | {"limit": str(min(max(limit, _OVERLAP), 1000))})
    entries = await follower.start(limit)
    header = True
    while True:
        if entries and output is Format.TABLE:
            print_table(entries, columns, header=header)
            header = False
        elif entries:
            show(entries, columns, output)
        await asyncio.sleep(_FOLLOW_SECONDS)
        try:
            entries = await follower.fresh()
        except ApiUnreachable:
            entries = []  # it has answered before, so it may be restarting


def _warn_of_undeclared(control: ControlClient, query: Mapping[str, str]) -> None:
    """Warns of a misspelt name. It is no error: entries of a name stay when its declaration is removed."""
    for kind in ("rule", "replica", "region", "execution"):
        if kind in query:
            try:
                control.call("GET", api_path(f"{kind}s", query[kind]))
            except ApiError as error:
                print(f"regmesh: {error}", file=sys.stderr)


class _Follower:
    """Remembers which entries were shown, so that each look finds all new ones, however many they are."""

    def __init__(self, control: ControlClient, query: Mapping[str, str]) -> None:
        self._control, self._query = control, query
        self._shown: LRUCache[str, str] = LRUCache(_MAX_REMEMBERED)  # status by task
        self._since: datetime | None = None  # older entries existed before the start and were not asked for

    async def start(self, limit: int) -> Sequence[Item]:
        """Returns the newest `limit` entries, the newest last, and remembers those just before them too."""
        wanted = max(limit, _OVERLAP)
        found = [entry async for entry in self._control.pages("/api/v1/logs", self._query, most=wanted)]
        self._remember(found)
        if len(found) == wanted:
            self._since = _moment(found[-1])
        return found[:limit][::-1]

    async def fresh(self) -> Sequence[Item]:
        """Returns the entries that are new or have another status, the newest last."""
        found: list[Item] = []
        known = 0
        async with aclosing(self._control.pages("/api/v1/logs", self._query, most=None)) as entries:
            async for entry in entries:
                if known >= _OVERLAP or (self._since is not None and _moment(entry) < self._since):
                    break
                if self._shown.get(entry["task_id"]) == entry["status"]:
                    known += 1
                else:
                    found.append(entry)
                    known = 0
        self._remember(found)
        return found[::-1]

    def _remember(self, newest_first: Sequence[Item]) -> None:
        for entry in reversed(newest_first):
            self._shown[entry["task_id"]] = entry["status"]


def _moment(entry: Item) -> datetime:
    return datetime.fromisoformat(entry["end_time"] or entry["start_time"])


def _reason(entry: Item) -> str:
    error = entry.get("error")
    return f"{error['code']} ({error['side']}): {error['message']}" if error else ""


_NARROW: Columns = {
    "TIME": lambda it: time(it["end_time"] or it["start_time"]),
    **fields("status", "operation", "source", "destination"),
    "SENT": lambda it: size(it["bytes_transferred"]),
    "TOTAL": lambda it: size(it["bytes_total"]),
    "LAG": lambda it: lag(it["lag_ms"]),
    **fields("attempts"),
}
_COLUMNS: Columns = {**_NARROW, "REASON": _reason}
_WIDE: Columns = {
    **_NARROW,
    "SKIPPED": lambda it: size(it["bytes_skipped"]),
    "MOUNTED": lambda it: it["blobs_mounted"],
    "TYPE": lambda it: it["resource_type"],
    "RULE": lambda it: it["rule"] or it["replica"],
    **fields("trigger"),
    "FROM": lambda it: it["source_region"],
    "TO": lambda it: it["destination_region"],
    **fields("origin", "hops", "digest"),
    "TASK": lambda it: it["task_id"],
    "EXECUTION": lambda it: it["execution_id"],
    "REASON": _reason,
}
