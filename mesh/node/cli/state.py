"""`regmesh apply`, `get`, `delete`: what is declared."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mesh.errors import RegmeshError, clean
from mesh.node import mesh_file
from mesh.node.cli import doctor, executions, remote
from mesh.node.cli.options import Output, Server
from mesh.node.cli.output import Columns, Format, show, size
from mesh.node.cli.remote import Refused, Remote
from mesh.rules.problems import Problem

_DECLARED = ("regions", "instances", "replicas", "grants", "rules", "webhooks")
_DEAD_LETTERS = "dead-letters"
_LISTED = ("agents", _DEAD_LETTERS, "parked")  # by the API as a whole, not one by one
_SHOWN = (*_DECLARED, "executions", *_LISTED)
_DELETED = (*_DECLARED, _DEAD_LETTERS)
_ABSENT = {  # as the API tells it where it is asked for one
    "agents": "there is no agent {}", _DEAD_LETTERS: "there is no dead letter {}", "parked": "no task {} is parked",
}  # fmt: skip
_NAMES = ("agent", "id", "task_id")  # of what is listed
_MOST_EXECUTIONS = 1000

Kind = Annotated[
    str,
    typer.Argument(
        help="region, instance, replica, grant, rule or webhook; agent, execution, dead-letters, parked",
        show_default=False,
    ),
]


class NotListed(RegmeshError):
    code = "not_found"


DeletedKind = Annotated[
    str,
    typer.Argument(
        help="region, instance, replica, grant, rule or webhook; dead-letter, dead-letters",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    app.command()(apply)
    app.command()(get)
    app.command()(delete)


def apply(
    file: Annotated[
        list[Path],
        typer.Option(
            "--file", "-f", help="The mesh.yaml to apply; - for standard input.", show_default=False
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change; change nothing.")
    ] = False,
    server: Server = "http://127.0.0.1:8080",
) -> None:
    """Declare what FILE says.

    All of it or, with one error, nothing. What it does not name stays as it is: `regmesh delete` removes it.
    """
    if len(file) > 1:
        raise typer.BadParameter("one file at a time: --file stands here several times")
    document = mesh_file.read(file[0])
    try:
        answer = Remote(server).call(
            "POST", "/api/v1/apply", query={"dry_run": "true"} if dry_run else None, body=document.document
        )
    except Refused as error:
        if not error.problems:
            raise
        raise mesh_file.InvalidFile(document.told([_located(one) for one in error.problems])) from error
    changes = answer["items"]
    if not changes:
        print(f"regmesh: {document.path} names nothing", file=sys.stderr)
    for change in changes:
        if change["change"] != "unchanged":
            fields = f": {', '.join(change['fields'])}" if change.get("fields") else ""
            print(f"{change['key']} {change['change']}{fields}{' (dry run)' if dry_run else ''}")
        if change.get("note"):
            print(f"note: {change['key']} {change['note']}")
    unchanged = sum(change["change"] == "unchanged" for change in changes)
    print(f"{len(changes) - unchanged} changed, {unchanged} unchanged")


def get(
    kind: Kind,
    name: Annotated[str | None, typer.Argument(help="Only this one.", show_default=False)] = None,
    output: Output = Format.TABLE,
    server: Server = "http://127.0.0.1:8080",
) -> None:
    """Show what is declared, and how each of it does.

    Also executions (the newest thousand), agents, dead letters, and what is parked. KIND/NAME is taken too, as other
    commands print it. Times are UTC.
    """
    kind, name = _split(kind, name)
    section = _section(kind, _SHOWN)
    control = Remote(server)
    if name is None:
        show(asyncio.run(_all(control, section)), _COLUMNS[section], output)
    elif section in _LISTED:
        found = [it for it in asyncio.run(_all(control, section)) if name in map(it.get, _NAMES)]
        if not found:
            told = _ABSENT[section].format(clean(name, 80))
            raise NotListed(f"{told}; `regmesh get {section}` shows them")
        show(found[:1], _COLUMNS[section], output, one=True)
    else:
        show([control.call("GET", remote.path(section, name))], _COLUMNS[section], output, one=True)


def delete(
    kind: DeletedKind,
    name: Annotated[
        str | None, typer.Argument(help="Its name. KIND/NAME is taken too.", show_default=False)
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(
            help="Of dead letters, those until a time (2026-01-31T10:00:00Z) or so long ago (2h, 3d).",
            show_default=False,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Of dead letters, all there are now.")] = False,
    server: Server = "http://127.0.0.1:8080",
) -> None:
    """Stop declaring something.

    Refused while something else names it. Nothing is deleted at any registry.

    A dead letter (`regmesh get dead-letters`) is dealt with by it: it is shown no more, and `doctor` tells of it no
    more, unless the same comes once more. Its bytes stay on the log for their 30 days.
    """
    kind, name = _split(kind, name)
    section = _section(kind, _DELETED)
    if before is not None or everything:
        if section != _DEAD_LETTERS or name is not None or (before is not None and everything):
            raise typer.BadParameter("--before TIME, or --all, stands in place of a dead letter's name")
        _delete_dead_letters(Remote(server), before)
        return
    if name is None:
        or_many = ", `--before TIME` or `--all`" if section == _DEAD_LETTERS else ""
        raise typer.BadParameter(f"say which: `regmesh delete {kind} NAME`{or_many}")
    Remote(server).call("DELETE", remote.path(section, name))
    print(f"{section.removesuffix('s')}/{name} deleted")


def _delete_dead_letters(control: Remote, before: str | None) -> None:
    """Those until a time, or all."""
    query = {"before": before} if before is not None else {"all": "true"}
    count = control.call("DELETE", remote.path(_DEAD_LETTERS), query=query)["deleted"]
    print(f"{count} dead letter{'' if count == 1 else 's'} deleted")


async def _all(control: Remote, section: str) -> list[dict[str, Any]]:
    """All that is declared; of executions, which are never forgotten, the newest."""
    most = _MOST_EXECUTIONS if section == "executions" else None
    query = {"limit": str(_MOST_EXECUTIONS)}
    return [item async for item in control.pages(f"/api/v1/{section}", query, most=most)]


def _split(kind: str, name: str | None) -> tuple[str, str | None]:
    """KIND NAME, or KIND/NAME as `apply` and `doctor` print it."""
    before, slash, after = kind.partition("/")
    return (before, after) if slash and name is None else (kind, name)


def _section(kind: str, kinds: Sequence[str]) -> str:
    section = kind.lower() if kind.lower() in _LISTED else kind.lower().rstrip("s") + "s"
    if section not in kinds:
        raise typer.BadParameter(f"{kind!r} is no kind: use one of {', '.join(kinds)}")
    return section


def _located(problem: Mapping[str, str]) -> Problem:
    """The server's problem with a path that leads into our file."""
    path = tuple(int(part) if part.isdigit() else part for part in _parts(problem["path"]))
    return Problem(path, problem["message"])


def _parts(where: str) -> list[str]:
    return [part for part in where.replace("[", ".").replace("]", "").split(".") if part]


def _filters(rule: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{part['type']}{'!' if part.get('decoration') == 'excludes' else ''}={_value(part['value'])}"
        for part in rule.get("filters", ())
    ) or "everything"  # fmt: skip


def _value(value: object) -> str:
    return "|".join(map(str, value)) if isinstance(value, list) else str(value)


def _lag(seconds: float | None) -> str | None:
    return f"{seconds:.1f} s" if seconds is not None else None


def _when(time: str | None) -> str | None:
    return time[:19].replace("T", " ") if time is not None else None


def _fill(fill: Mapping[str, Any] | None) -> str | None:
    if fill is None:
        return None
    ended = sum(fill[name] for name in ("succeed", "skipped", "failed", "stopped"))
    return fill["status"] if fill["total"] is None else f"{fill['status']} {ended}/{fill['total']}"


_COLUMNS: Mapping[str, Columns] = {
    "executions": executions.COLUMNS,
    _DEAD_LETTERS: doctor.DEAD_LETTERS,
    "parked": executions.PARKED,
    "regions": {
        "NAME": lambda it: it["name"],
        "JURISDICTION": lambda it: it["jurisdiction"],
        "AGENTS": lambda it: it["agents"],
    },
    "instances": {
        "NAME": lambda it: it["name"],
        "ACCOUNT": lambda it: it["account"],
        "REGION": lambda it: it["region"],
        "URL": lambda it: it["url"],
        "STATE": lambda it: it.get("state"),
    },
    "replicas": {
        "NAME": lambda it: it["name"],
        "REGION": lambda it: it["region"],
        "URL": lambda it: it["url"],
        "STATE": lambda it: it["state"],
        "LAG": lambda it: _lag(it["lag_seconds"]),
        "TASKS LEFT": lambda it: it["tasks_left"],
        "BYTES LEFT": lambda it: size(it["bytes_left"]),
        "FILL": lambda it: _fill(it["fill"]),
        "WHY": lambda it: it["reason"] or "",
    },
    "grants": {
        "NAME": lambda it: it["name"],
        "ACCOUNT": lambda it: it["account"],
        "FROM": lambda it: it["from"],
        "NAMESPACES": lambda it: ", ".join(it["namespaces"]),
    },
    "rules": {
        "NAME": lambda it: it["name"],
        "SOURCE": lambda it: it["source"],
        "DESTINATION": lambda it: it["destination"],
        "TRIGGER": lambda it: it["trigger"].get("cron", it["trigger"]["type"]),
        "FILTERS": _filters,
        "ENABLED": lambda it: it["enabled"],
    },
    "webhooks": {
        "NAME": lambda it: it["name"],
        "URL": lambda it: it["url"],
        "ACCOUNT": lambda it: it["account"],
        "EVENTS": lambda it: ", ".join(it["event_types"]),
        "STATE": lambda it: (it.get("state") or "-").partition(":")[0],
        "WAITING": lambda it: it.get("waiting"),
        "LAST DELIVERED": lambda it: _when(it.get("last_delivered")),
        "LAST FAILURE": lambda it: _when((it.get("last_failure") or {}).get("time")),
        "WHY": lambda it: (it.get("last_failure") or {}).get("reason", ""),
    },
    "agents": {
        "AGENT": lambda it: it["agent"],
        "REGION": lambda it: it["region"],
        "RULES REV": lambda it: it["rules_rev"],
        "RUNNING": lambda it: it["running"],
        "RELAY": lambda it: it["relay"],
        "SEEN": lambda it: it["time"],
    },
}
