"""`regmesh apply` and `regmesh delete`: change what is declared."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mesh.node import mesh_file
from mesh.node.cli.control_client import ApiError, ControlClient, api_path
from mesh.node.cli.get import DEAD_LETTERS, DECLARED, section_of, split_name
from mesh.node.cli.options import DEFAULT_SERVER, Server, argument, option
from mesh.rules.problems import Problem


def apply(
    file: Annotated[list[Path], option("The mesh.yaml to apply; - reads standard input.", "--file", "-f")],
    dry_run: Annotated[bool, option("Show what would change, and change nothing.", "--dry-run")] = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Declare what FILE contains.

    All of it is declared or, with one error, nothing. What FILE does not name stays as it is; `regmesh delete` removes
    it. Example: regmesh apply -f mesh.yaml --dry-run
    """
    if len(file) > 1:
        raise typer.BadParameter("one file at a time: --file is given several times")
    document = mesh_file.read(file[0])
    try:
        answer = ControlClient(server).call(
            "POST", "/api/v1/apply", query={"dry_run": "true"} if dry_run else None, body=document.document
        )
    except ApiError as error:
        if not error.problems:
            raise
        problems = [_problem(one) for one in error.problems]
        raise mesh_file.InvalidFile(document.format_problems(problems)) from error
    changes = answer["items"]
    if not changes:
        print(f"regmesh: {document.path} declares nothing", file=sys.stderr)
    for change in changes:
        _print_change(change, dry_run=dry_run)
    unchanged = sum(change["change"] == "unchanged" for change in changes)
    print(f"{len(changes) - unchanged} changed, {unchanged} unchanged")


def delete(
    kind: Annotated[
        str, argument("region, instance, replica, grant, rule, webhook, dead-letter or dead-letters")
    ],
    name: Annotated[str | None, argument("The name; KIND/NAME works too.")] = None,
    before: Annotated[
        str | None,
        option("With dead-letters: those until a time (2026-01-31T10:00:00Z) or an age (2h, 3d)."),
    ] = None,
    everything: Annotated[bool, option("With dead-letters: all of them.", "--all")] = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Remove a declaration, or dismiss dead letters.

    A declaration that another one names is not removed. Nothing is deleted at any registry.

    A dismissed dead letter is no longer listed and `doctor` no longer reports it, unless the same record arrives again.
    The log keeps its bytes for 30 days. Example: regmesh delete dead-letters --before 2h
    """  # fmt: skip
    kind, name = split_name(kind, name)
    section = section_of(kind, (*DECLARED, DEAD_LETTERS))
    if before is not None or everything:
        if section != DEAD_LETTERS or name is not None or (before is not None and everything):
            raise typer.BadParameter("use --before TIME or --all with dead-letters and without a name")
        _delete_dead_letters(ControlClient(server), before)
        return
    if name is None:
        or_many = ", `--before TIME` or `--all`" if section == DEAD_LETTERS else ""
        raise typer.BadParameter(f"a name is missing: `regmesh delete {kind} NAME`{or_many}")
    ControlClient(server).call("DELETE", api_path(section, name))
    print(f"{section.removesuffix('s')}/{name} deleted")


def _print_change(change: Mapping[str, Any], *, dry_run: bool) -> None:
    if change["change"] != "unchanged":
        fields = f": {', '.join(change['fields'])}" if change.get("fields") else ""
        print(f"{change['key']} {change['change']}{fields}{' (dry run)' if dry_run else ''}")
    if change.get("note"):
        print(f"note: {change['key']} {change['note']}")


def _problem(problem: Mapping[str, str]) -> Problem:
    """Returns the server's problem with its path, such as `rules[0].source`, as the parts that lead into the file."""
    parts = problem["path"].replace("[", ".").replace("]", "").split(".")
    return Problem(tuple(int(part) if part.isdigit() else part for part in parts if part), problem["message"])


def _delete_dead_letters(control: ControlClient, before: str | None) -> None:
    query = {"before": before} if before is not None else {"all": "true"}
    count = control.call("DELETE", api_path(DEAD_LETTERS), query=query)["deleted"]
    print(f"{count} dead letter{'' if count == 1 else 's'} deleted")
