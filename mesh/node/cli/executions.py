"""`regmesh sync`, `stop`, `retry`: rules run by hand, and how far they are."""

import asyncio
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mesh.clock import SystemClock
from mesh.node.cli import remote
from mesh.node.cli.options import Server
from mesh.node.cli.output import Columns, over_the_last_line, size
from mesh.node.cli.remote import Remote, Unanswered
from schemas.parked import STILL_QUEUED, STILL_RUNNING

_LOOK_EVERY = 1  # seconds; control answers sooner when it has ended
_RUNS = "InProgress"
_MOST_SILENCES = 30  # looks in a row, half a minute: control starts again within it


def register(app: typer.Typer) -> None:
    for command in (sync, stop, retry):
        app.command()(command)


def sync(
    rule: Annotated[
        str, typer.Argument(help="The rule to run, whatever its trigger, or a replica.", show_default=False)
    ],
    repository: Annotated[
        str | None,
        typer.Option(help="Only these of what it matches: a name or a pattern.", show_default=False),
    ] = None,
    tag: Annotated[
        str | None, typer.Option(help="Only these tags: a name or a pattern.", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be copied; copy nothing.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until it ends.")] = False,
    server: Server = "http://127.0.0.1:8080",
) -> None:
    """Copy now everything that RULE matches at its source. Prints the execution's id.

    RULE may be a replica: all of it once more. Then what it holds and its instance does not have is deleted there.

    With --wait (and with --dry-run, whose answer is the point) it exits 0 when all is at the destination, else 1.
    """
    asked = {"rule": rule, "repository": repository, "tag": tag, "dry_run": dry_run}
    execution_id = Remote(server).call("POST", "/api/v1/executions", body=asked)["id"]
    print(execution_id, flush=True)
    if wait or dry_run:
        try:
            ended = asyncio.run(_until_ended(Remote(server), execution_id))
        except KeyboardInterrupt:
            print(f"regmesh: it goes on; `regmesh stop {execution_id}` ends it", file=sys.stderr)
            raise
        copied = asyncio.run(_show_plan(Remote(server), execution_id)) if dry_run else 0
        _tell(ended, copied)


def stop(
    execution: Annotated[
        str, typer.Argument(help="Its id, as `regmesh get executions` shows.", show_default=False)
    ],
    server: Server = "http://127.0.0.1:8080",
) -> None:
    """End an execution.

    Waiting tasks end at once, running ones after the blobs that are on their way.
    """
    found = Remote(server).call("POST", remote.path("executions", execution, "stop"), body={})
    print(
        f"{execution} {'is being stopped' if found['status'] == _RUNS else 'had ended: ' + found['status']}"
    )


def retry(
    task: Annotated[
        str | None, typer.Argument(help="A task's id, as `regmesh logs -o wide` shows.", show_default=False)
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="All that failed and that nothing has made good since.")
    ] = False,
    rule: Annotated[
        str | None, typer.Option(help="With --failed: only of this rule.", show_default=False)
    ] = None,
    close: Annotated[
        bool, typer.Option("--close", help="Do not try TASK, which is parked, again: it ends Stopped.")
    ] = False,
    server: Server = "http://127.0.0.1:8080",
) -> None:
    """Try again what failed.

    As an execution of its own; what is parked (`regmesh get parked`) is tried at once. Prints the ids of the
    executions, of a parked task its own.
    """
    if (task is None) != failed or (rule is not None and not failed) or (close and failed):
        raise typer.BadParameter("name one task (also --close), or say --failed (also --rule RULE)")
    if task is not None and close:
        Remote(server).call("POST", remote.path("tasks", task, "close"), body={})
        print(f"{task} closed")
        return
    if task is not None:
        print(Remote(server).call("POST", remote.path("tasks", task, "retry"), body={})["id"])
        return
    answer = Remote(server).call("POST", "/api/v1/retries", body={"rule": rule})
    for one in answer["items"]:
        print(f"{one['id']} {one['rule']}: {one['total']} to try again")
    if answer["parked"]:
        print(f"{answer['parked']} parked: tried now")
    if not answer["items"] and not answer["parked"]:
        print("nothing to try again")


async def _until_ended(control: Remote, execution_id: str) -> Mapping[str, Any]:
    """Follow it; each change is a line, on a terminal over the last one."""
    said, wait, silences = "", 0, 0
    rewrites, clock = sys.stderr.isatty(), SystemClock()
    while True:
        asked = clock.monotonic()
        try:
            found: Mapping[str, Any] = await control.ask(
                "GET", f"/api/v1/executions/{execution_id}", wait=wait
            )
        except Unanswered:
            silences += 1
            if silences > _MOST_SILENCES:
                raise
            await asyncio.sleep(_LOOK_EVERY)  # it took the execution, so it may be starting again
            continue
        silences = 0
        if (line := _line(found)) != said:
            if rewrites:
                over_the_last_line(line)
            else:
                print(line, file=sys.stderr, flush=True)
            said = line
        if found["status"] != _RUNS or _all_left_is_parked(found):
            if rewrites:
                print(file=sys.stderr)
            return found
        await asyncio.sleep(wait - (clock.monotonic() - asked))  # an older control does not wait
        wait = _LOOK_EVERY


def _all_left_is_parked(found: Mapping[str, Any]) -> bool:
    """Nothing of it runs; what is parked may take a day."""
    return bool(found["parked"]) and found["parked"] == found["in_progress"]


def _line(found: Mapping[str, Any]) -> str:
    total = "listing" if found["total"] is None else _tags(found["total"])
    words = {"skipped": "looked at"} if found["dry_run"] else {}
    counts = ", ".join(
        f"{found[name]} {words.get(name, name)}"
        + (f" ({found['refused']} refused)" if name == "skipped" and found["refused"] else "")
        for name in ("succeed", "skipped", "failed", "stopped", "parked")
        if found[name]
    )
    sent = f", {size(found['bytes_transferred'])} sent" if found["bytes_transferred"] else ""
    return f"{found['status']}: {total}{': ' + counts if counts else ''}{sent}"


def _tags(count: int) -> str:
    return f"{count} tag{'' if count == 1 else 's'}"


async def _show_plan(control: Remote, execution_id: str) -> int:
    """Tag by tag; how many would be copied."""
    copied = 0
    query = {"execution": execution_id, "limit": "1000"}
    async for entry in control.pages("/api/v1/logs", query, most=None):
        print(f"{entry['source']} -> {entry['destination']}: {_plan(entry)}")
        copied += _is_planned(entry)
    return copied


def _is_planned(entry: Mapping[str, Any]) -> bool:
    return entry["error"] is not None and entry["error"]["code"] == "dry_run"


def _plan(entry: Mapping[str, Any]) -> str:
    error = entry["error"] or {"code": "", "message": ""}
    return str(error["message"]) if _is_planned(entry) else f"{entry['status']}, {error['message']}"


def _tell(ended: Mapping[str, Any], copied: int) -> None:
    if ended["dry_run"]:
        sent = size(ended["bytes_total"] - ended["bytes_skipped"])
        print(f"{copied} of {_tags(ended['total'])} would be copied, {sent} sent")
    if ended["total"] == 0 and ended["error"] is None:
        print(f"regmesh: nothing at its source is matched{_narrowed(ended)}", file=sys.stderr)
    if ended["error"] is not None:
        print(f"regmesh: {ended['error']['message']}", file=sys.stderr)
    elif ended["failed"]:
        print(
            f"regmesh: {ended['failed']} failed; `regmesh logs --execution {ended['id']} --status Failed`",
            file=sys.stderr,
        )
    if ended["parked"]:
        print(
            f"regmesh: {ended['parked']} failed for now and will be tried again; `regmesh get parked` says why",
            file=sys.stderr,
        )
    if ended["refused"] and not ended["dry_run"]:
        print(
            f"regmesh: {ended['refused']} may not be copied; `regmesh logs --execution {ended['id']} --status Skipped`",
            file=sys.stderr,
        )
    if ended["status"] != "Succeed" or (ended["refused"] and not ended["dry_run"]):
        raise typer.Exit(1)


def _narrowed(ended: Mapping[str, Any]) -> str:
    by = [f"--{name} {ended[name]}" for name in ("repository", "tag") if ended[name] is not None]
    return (
        f" with {' and '.join(by)}"
        if by
        else f"; `regmesh get rule {ended['rule']} -o yaml` shows its filters"
    )


def _tried_again(parked: Mapping[str, Any]) -> str:
    """When; `-` of what its agent still runs, or is to run when its turn comes."""
    in_hand = parked["error"]["code"] in (STILL_RUNNING, STILL_QUEUED)
    return "-" if in_hand else str(parked["not_before"])[:19].replace("T", " ")


PARKED: Columns = {
    "TASK": lambda it: it["task_id"],
    "RULE": lambda it: it["rule"],
    "SOURCE": lambda it: it["source"],
    "DESTINATION": lambda it: it["destination"],
    "ROUNDS": lambda it: it["rounds"],
    "TRIED AGAIN": _tried_again,
    "WHY": lambda it: it["error"]["message"],
}

COLUMNS: Columns = {
    "EXECUTION": lambda it: it["id"],
    "RULE": lambda it: it["rule"],
    "TRIGGER": lambda it: it["trigger"] + (" (dry run)" if it["dry_run"] else ""),
    "STATUS": lambda it: it["status"],
    "TOTAL": lambda it: it["total"],
    "SUCCEED": lambda it: it["succeed"],
    "SKIPPED": lambda it: it["skipped"],
    "FAILED": lambda it: it["failed"],
    "STOPPED": lambda it: it["stopped"],
    "SENT": lambda it: size(it["bytes_transferred"]),
    "STARTED": lambda it: it["start_time"][:19].replace("T", " "),
    "WHY": lambda it: it["error"]["message"] if it["error"] else "",
}
