"""`regmesh get`: declarations with their state, executions, agents, parked tasks and dead letters."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from mesh.errors import RegmeshError, clean
from mesh.node.cli.control_client import ControlClient, api_path
from mesh.node.cli.options import DEFAULT_SERVER, Output, Server, argument
from mesh.node.cli.output import Columns, Format, Item, fields, lag, show, size, time
from schemas.parked import STILL_QUEUED, STILL_RUNNING

DECLARED = ("regions", "instances", "replicas", "grants", "rules", "webhooks")
DEAD_LETTERS = "dead-letters"
_LISTED = ("agents", DEAD_LETTERS, "parked")  # sections that the API only lists
_SHOWN = (*DECLARED, "executions", *_LISTED)
_MISSING = {  # in the words of the API for the sections that have single items
    "agents": "there is no agent {}", DEAD_LETTERS: "there is no dead letter {}", "parked": "no task {} is parked",
}  # fmt: skip
_NAMES = ("agent", "id", "task_id")  # the fields that name an item of `_LISTED`
_MAX_EXECUTIONS = 1000


class NotListed(RegmeshError):
    """No item of a list has that name."""

    code = "not_found"


def get(
    kind: Annotated[
        str,
        argument("region, instance, replica, grant, rule, webhook, agent, execution, dead-letters or parked"),
    ],
    name: Annotated[str | None, argument("Show only the one with this name; KIND/NAME works too.")] = None,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Show what is declared and the state of each.

    Also shows agents, executions (the newest 1000), parked tasks and dead letters. Times are UTC. Examples: regmesh get
    replicas; regmesh get rule/release-to-eu -o yaml
    """
    kind, name = split_name(kind, name)
    section = section_of(kind, _SHOWN)
    control = ControlClient(server)
    if name is not None and section not in _LISTED:
        show([control.call("GET", api_path(section, name))], _COLUMNS[section], output, one=True)
        return
    most = _MAX_EXECUTIONS if section == "executions" else None
    items = control.items(api_path(section), most=most)
    if name is None:
        show(items, _COLUMNS[section], output)
        return
    found = [item for item in items if name in map(item.get, _NAMES)]
    if not found:
        missing = _MISSING[section].format(clean(name, 80))
        raise NotListed(f"{missing}; `regmesh get {section}` shows them")
    show(found[:1], _COLUMNS[section], output, one=True)


def split_name(kind: str, name: str | None) -> tuple[str, str | None]:
    """Returns kind and name of `KIND NAME` or of `KIND/NAME`, as other commands print it."""
    before, slash, after = kind.partition("/")
    return (before, after) if slash and name is None else (kind, name)


def section_of(kind: str, sections: Sequence[str]) -> str:
    """Returns the section of the API for a kind, in singular or plural.

    Raises:
        typer.BadParameter: It is none of `sections`.
    """
    section = kind.lower() if kind.lower() in _LISTED else kind.lower().rstrip("s") + "s"
    if section not in sections:
        raise typer.BadParameter(f"{kind!r} is not a kind: use one of {', '.join(sections)}")
    return section


def _filters(rule: Item) -> str:
    return ", ".join(
        f"{part['type']}{'!' if part.get('decoration') == 'excludes' else ''}={_filter_value(part['value'])}"
        for part in rule.get("filters", ())
    ) or "everything"  # fmt: skip


def _filter_value(value: object) -> str:
    return "|".join(map(str, value)) if isinstance(value, list) else str(value)


def _replica_lag(replica: Item) -> str | None:
    seconds = replica["lag_seconds"]
    return lag(seconds * 1000) if seconds is not None else None


def _fill(replica: Item) -> str | None:
    fill = replica["fill"]
    if fill is None:
        return None
    ended = sum(fill[name] for name in ("succeed", "skipped", "failed", "stopped"))
    return str(fill["status"]) if fill["total"] is None else f"{fill['status']} {ended}/{fill['total']}"


def _kept(thing: Item) -> str | None:
    """Returns the share of the last hour, or of the last day where nothing ended in that hour."""
    kept = thing.get("kept") or {}
    found = next((kept[window] for window in ("1h", "1d") if kept.get(window) is not None), None)
    return f"{100 * found:.1f} %" if found is not None else None


def _eta(thing: Item) -> str | None:
    seconds = thing.get("eta_seconds")
    return lag(seconds * 1000) if seconds is not None else None


def _oldest_push(rule: Item) -> str | None:
    seconds = rule.get("oldest_push_seconds")
    return lag(seconds * 1000) if seconds is not None else None


def _last_failure(webhook: Item, field: str) -> Any:
    return (webhook.get("last_failure") or {}).get(field)


def _next_attempt(parked: Item) -> str | None:
    """Returns None for a task that its agent still runs, or runs as soon as it has a permit."""
    waits = parked["error"]["code"] not in (STILL_RUNNING, STILL_QUEUED)
    return time(parked["not_before"]) if waits else None


_COLUMNS: Mapping[str, Columns] = {
    "regions": fields("name", "jurisdiction", "agents"),
    "instances": fields("name", "account", "region", "url", "state"),
    "replicas": {
        **fields("name", "region", "url", "state"),
        "LAG": _replica_lag,
        **fields("freshness"),
        "KEPT": _kept,
        **fields("tasks_left"),
        "ETA": _eta,
        "BYTES LEFT": lambda it: size(it["bytes_left"]),
        "FILL": _fill,
        "REASON": lambda it: it["reason"] or "",
    },
    "grants": {
        **fields("name", "account", "from"),
        "NAMESPACES": lambda it: ", ".join(it["namespaces"]),
    },
    "rules": {
        **fields("name", "source", "destination"),
        "TRIGGER": lambda it: it["trigger"].get("cron", it["trigger"]["type"]),
        "FILTERS": _filters,
        "LAG": _oldest_push,
        **fields("freshness"),
        "KEPT": _kept,
        **fields("tasks_left"),
        "ETA": _eta,
        **fields("enabled"),
    },
    "webhooks": {
        **fields("name", "url", "account"),
        "EVENTS": lambda it: ", ".join(it["event_types"]),
        "STATE": lambda it: (it.get("state") or "-").partition(":")[0],
        **fields("waiting"),
        "LAST DELIVERED": lambda it: time(it.get("last_delivered")),
        "LAST FAILURE": lambda it: time(_last_failure(it, "time")),
        "REASON": lambda it: _last_failure(it, "reason") or "",
    },
    "agents": {**fields("agent", "region", "rules_rev", "running", "relay"), "LAST SEEN": lambda it: it["time"]},
    "executions": {
        "EXECUTION": lambda it: it["id"],
        "RULE": lambda it: it["rule"],
        "TRIGGER": lambda it: it["trigger"] + (" (dry run)" if it["dry_run"] else ""),
        **fields("status", "total", "succeed", "skipped", "failed", "stopped"),
        "SENT": lambda it: size(it["bytes_transferred"]),
        "STARTED": lambda it: time(it["start_time"]),
        "REASON": lambda it: it["error"]["message"] if it["error"] else "",
    },
    "parked": {
        "TASK": lambda it: it["task_id"],
        **fields("rule", "source", "destination", "rounds"),
        "NEXT ATTEMPT": _next_attempt,
        "REASON": lambda it: it["error"]["message"],
    },
    DEAD_LETTERS: {
        "ID": lambda it: it["id"],
        "TIME": lambda it: time(it["time"]),
        **fields("region", "position"),
        "BYTES": lambda it: it["size"],
        **fields("count", "reason"),
    },
}  # fmt: skip
