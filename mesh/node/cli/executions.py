"""`regmesh sync`, `stop` and `retry`: run a rule by hand, end the run, and retry what failed."""

import asyncio
import sys
from typing import Annotated

import typer

from mesh.clock import SystemClock
from mesh.node.cli.control_client import ApiUnreachable, ControlClient, api_path
from mesh.node.cli.options import DEFAULT_SERVER, Server, argument, option
from mesh.node.cli.output import Item, ProgressLine, size

_POLL_SECONDS = 1  # control answers a poll early when the execution ends
_IN_PROGRESS = "InProgress"
_MAX_UNANSWERED = 30  # polls in a row, half a minute: control restarts within it


def sync(
    rule: Annotated[str, argument("The rule to run, whatever its trigger, or a replica (INSTANCE@REGION).")],
    repository: Annotated[
        str | None, option("Only matching repositories: a name or a pattern such as game/**.")
    ] = None,
    tag: Annotated[str | None, option("Only matching tags: a name or a pattern such as v1.*.")] = None,
    dry_run: Annotated[bool, option("Show what would be copied, and copy nothing.", "--dry-run")] = False,
    wait: Annotated[bool, option("Show progress until the execution ends.", "--wait")] = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Copy now everything that RULE matches at its source.

    Prints the id of the execution. For a replica, everything is copied again, and then what the replica holds and its
    instance does not have is deleted there.

    With --wait or --dry-run it exits with 0 when everything is at the destination, else with 1. Example: regmesh sync
    release-to-eu --repository 'game/**' --wait
    """  # fmt: skip
    body = {"rule": rule, "repository": repository, "tag": tag, "dry_run": dry_run}
    execution_id = ControlClient(server).call("POST", "/api/v1/executions", body=body)["id"]
    print(execution_id, flush=True)
    if wait or dry_run:
        try:
            ended = asyncio.run(_until_ended(ControlClient(server), execution_id))
        except KeyboardInterrupt:
            print(
                f"regmesh: the execution continues; `regmesh stop {execution_id}` stops it", file=sys.stderr
            )
            raise
        if dry_run:
            _print_plan(ControlClient(server), ended)
        _print_problems(ended)
        if ended["status"] != "Succeed" or (ended["refused"] and not dry_run):
            raise typer.Exit(1)


def stop(
    execution: Annotated[str, argument("The id of the execution, from `regmesh get executions`.")],
    server: Server = DEFAULT_SERVER,
) -> None:
    """Stop an execution.

    Waiting tasks end at once, running ones after the blobs that they are copying.
    """
    found = ControlClient(server).call("POST", api_path("executions", execution, "stop"), body={})
    is_running = found["status"] == _IN_PROGRESS
    print(f"{execution} {'is being stopped' if is_running else 'had ended: ' + found['status']}")


def retry(
    task: Annotated[str | None, argument("The id of the task, from `regmesh logs -o wide`.")] = None,
    failed: Annotated[
        bool, option("All tasks that failed and whose tag no later task has copied.", "--failed")
    ] = False,
    rule: Annotated[str | None, option("With --failed: only tasks of this rule or replica.")] = None,
    close: Annotated[bool, option("End TASK, which is parked, as Stopped instead.", "--close")] = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Retry tasks that failed, in new executions.

    Prints the ids of the executions. A parked task (`regmesh get parked`) is attempted at once, in its own execution.
    Example: regmesh retry --failed --rule release-to-eu
    """  # fmt: skip
    if (task is None) != failed or (rule is not None and not failed) or (close and failed):
        raise typer.BadParameter("name one task (also with --close), or use --failed (also with --rule RULE)")
    control = ControlClient(server)
    if task is not None:
        answer = control.call("POST", api_path("tasks", task, "close" if close else "retry"), body={})
        print(f"{task} closed" if close else answer["id"])
        return
    answer = control.call("POST", "/api/v1/retries", body={"rule": rule})
    for one in answer["items"]:
        print(f"{one['id']} {one['rule']}: {one['total']} to retry")
    if answer["parked"]:
        print(f"{answer['parked']} parked: retried now")
    if not answer["items"] and not answer["parked"]:
        print("nothing to retry")


async def _until_ended(control: ControlClient, execution_id: str) -> Item:
    """Shows progress until the execution ends, or until only parked tasks are left, which may take a day."""
    progress, clock = ProgressLine(), SystemClock()
    wait = unanswered = 0
    while True:
        asked = clock.monotonic()
        try:
            found: Item = await control.request("GET", api_path("executions", execution_id), wait=wait)
        except ApiUnreachable:
            unanswered += 1
            if unanswered > _MAX_UNANSWERED:
                raise
            await asyncio.sleep(_POLL_SECONDS)  # control has accepted the execution, so it may be restarting
            continue
        unanswered = 0
        progress.show(_progress(found))
        only_parked = bool(found["parked"]) and found["parked"] == found["in_progress"]
        if found["status"] != _IN_PROGRESS or only_parked:
            progress.end()
            return found
        await asyncio.sleep(
            wait - (clock.monotonic() - asked)
        )  # an older control does not hold its answer back
        wait = _POLL_SECONDS


def _progress(found: Item) -> str:
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


def _print_plan(control: ControlClient, ended: Item) -> None:
    copies = 0
    for entry in control.items("/api/v1/logs", {"execution": ended["id"]}):
        error = entry["error"] or {"code": "", "message": ""}
        is_copy = error["code"] == "dry_run"
        plan = error["message"] if is_copy else f"{entry['status']}, {error['message']}"
        print(f"{entry['source']} -> {entry['destination']}: {plan}")
        copies += is_copy
    sent = size(ended["bytes_total"] - ended["bytes_skipped"])
    print(f"{copies} of {_tags(ended['total'])} would be copied, {sent} sent")


def _print_problems(ended: Item) -> None:
    lines = []
    logs = f"`regmesh logs --execution {ended['id']} --status"
    if ended["total"] == 0 and ended["error"] is None:
        lines.append(f"nothing matches at the source{_narrowed_by(ended)}")
    if ended["error"] is not None:
        lines.append(ended["error"]["message"])
    elif ended["failed"]:
        lines.append(f"{ended['failed']} failed; {logs} Failed` shows why")
    if ended["parked"]:
        lines.append(f"{ended['parked']} failed for now and will be retried; `regmesh get parked` shows why")
    if ended["refused"] and not ended["dry_run"]:
        lines.append(f"{ended['refused']} may not be copied; {logs} Skipped` shows why")
    for line in lines:
        print(f"regmesh: {line}", file=sys.stderr)


def _narrowed_by(ended: Item) -> str:
    by = [f"--{name} {ended[name]}" for name in ("repository", "tag") if ended[name] is not None]
    if by:
        return f" with {' and '.join(by)}"
    return f"; `regmesh get rule {ended['rule']} -o yaml` shows its filters"
