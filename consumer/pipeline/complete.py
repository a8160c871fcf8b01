"""What is written to the log when a task ends: its completion, and the event by which chains of rules continue."""

from datetime import datetime, timedelta

from consumer.progress import TaskProgress, TaskRun
from consumer.task import ALREADY_GONE, Outcome, Task
from mesh.log.port import Append, Log
from mesh.registry.referrers import is_fallback
from schemas import codec, topics
from schemas.completions import Completion, Progress, Status, TaskError
from schemas.envelope import MAX_HOPS, make_id
from schemas.events import Action, Cause, Event, TagState
from schemas.names import Digest
from schemas.parked import Parked


async def complete(
    run: TaskRun, outcome: Outcome, now: datetime, log: Log, *, was_parked: bool = False
) -> Completion:
    """Writes the end of a task, durably, and returns its completion. Writing it again is harmless: ids are the same.

    Raises:
        LogUnavailable: The log cannot be written now.
    """
    task, completion = run.task, make_completion(run, outcome, now)
    region = task.destination.region
    end = Append(topics.completions(region), completion.key, codec.encode(completion))
    records: list[Append] = []
    if task.operation == "delete":
        records += _departure(task, outcome, now)
    elif outcome.holds and outcome.digest is not None:
        records += _arrival(task, outcome.digest, now)
    records.append(Append(topics.status(region), task.task_id, None))
    if was_parked:
        records.append(Append(topics.retry(region), task.task_id, None))
    # The completion comes first: the event is delivered again until all that follows from it has landed too.
    await log.append([end], then=records)
    return completion


async def complete_parked(parked: Parked, outcome: Outcome, now: datetime, log: Log) -> None:
    """Writes the end of a parked task that does not run.

    Raises:
        LogUnavailable: The log cannot be written now.
    """
    completion = parked.ended(outcome.status, outcome.error, now)
    region = parked.destination_region
    end = Append(topics.completions(region), completion.key, codec.encode(completion))
    await log.append([end], then=[Append(topics.retry(region), parked.task_id, None)])


def make_parked(
    run: TaskRun, error: TaskError, agent: str, now: datetime, *,
    rounds: int, first_parked: datetime, not_before: datetime,
) -> Parked:  # fmt: skip
    """Returns the record of a task that runs again later, or that still runs though its event is finished."""
    task, progress = run.task, run.progress
    return Parked(
        **_work(task, progress, Status.PENDING, progress.digest),
        id=make_id("parked", task.task_id, rounds, error.code),
        time=now,
        event=task.event,
        agent=agent,
        error=error,
        rounds=rounds,
        first_parked=first_parked,
        not_before=not_before,
        begun=progress.in_progress,
    )


def make_completion(run: TaskRun, outcome: Outcome, now: datetime) -> Completion:
    """Returns the record of a task's end."""
    task, progress = run.task, run.progress
    return Completion(
        **_work(task, progress, outcome.status, outcome.digest or progress.digest),
        id=make_id("completion", task.task_id, outcome.status),
        time=now,
        end_time=now,
        bytes_skipped=progress.bytes_skipped,
        blobs_mounted=progress.blobs_mounted,
        blobs_transferred=progress.blobs_transferred,
        lag_ms=_lag_ms(task.event, now),
        error=outcome.error,
        rebuilt_from=outcome.rebuilt_from,
        subject=progress.subject,
        attached=tuple(progress.attached),
    )


def make_progress(run: TaskRun, agent: str, now: datetime) -> Progress:
    """Returns the record of a running task."""
    task, progress = run.task, run.progress
    work = _work(task, progress, Status.IN_PROGRESS, progress.digest)
    return Progress(**work, id=make_id("progress", task.task_id), time=now, agent=agent)


def _lag_ms(event: Event, now: datetime) -> int:
    return max(0, int((now - event.occurred_at) / timedelta(milliseconds=1)))


def _work(task: Task, progress: TaskProgress, status: Status, digest: Digest | None) -> dict[str, object]:
    """The fields of `schemas.completions.TaskRecord`."""
    return {
        "task_id": task.task_id,
        "execution_id": task.execution_id,
        "rule": task.rule.name if task.rule.replica is None else None,
        "replica": task.rule.replica,
        "trigger": task.trigger,
        "operation": task.operation,
        "resource_type": progress.resource,
        "account": task.source.account,
        "destination_account": task.destination.account,
        "source_place": task.source.name,
        "destination_place": task.destination.name,
        "source_region": task.source.region,
        "destination_region": task.destination.region,
        "repository": task.repository,
        "destination_repository": task.destination_repository,
        "tag": task.tag,
        "digest": digest or task.digest,
        "status": status,
        "start_time": progress.started,
        "bytes_total": progress.bytes_total,
        "bytes_transferred": progress.bytes_transferred,
        "bytes_from": {str(region): count for region, count in progress.bytes_from.items()},
        "attempts": progress.attempts,
        "rules_rev": task.rules_rev,
        "origin": task.chain.origin,
        "hops": task.event.hops,
    }


def _departure(task: Task, outcome: Outcome, now: datetime) -> list[Append]:
    """What the destination no longer holds, and the event by which chains of rules continue."""
    was_missing = outcome.error is not None and outcome.error.code == ALREADY_GONE
    if outcome.status is not Status.SUCCEED and not was_missing:
        return []
    records: list[Append] = []
    if task.tag is not None:
        key = f"{task.destination.name}/{task.destination_repository}:{task.tag}"
        records.append(Append(topics.tags(task.destination.region), key, None))
    if not was_missing:
        action = Action.TAG_DELETE if task.tag is not None else Action.MANIFEST_DELETE
        records += _event(task, make_id("departure", task.task_id), action, outcome.digest, now)
    return records


def _arrival(task: Task, digest: Digest, now: datetime) -> list[Append]:
    """What the destination now holds, and the event by which chains continue if its registry sends no notifications."""
    records: list[Append] = []
    if task.tag is not None and not is_fallback(task.tag):  # a fallback index is merged: its digest differs
        held = TagState(
            id=make_id("tag", task.task_id, digest), time=now, origin=task.chain.origin, hops=task.event.hops,
            place=task.destination.name, repository=task.destination_repository, tag=task.tag, digest=digest,
            written_by=Cause.ARRIVAL, tag_version=int(now.timestamp() * 1_000_000),
        )  # fmt: skip
        records.append(Append(topics.tags(task.destination.region), held.key, codec.encode(held)))
    event_id = make_id("arrival", task.task_id, digest)
    return records + _event(task, event_id, Action.MANIFEST_PUSH, digest, now)


def _event(task: Task, event_id: str, action: Action, digest: Digest | None, now: datetime) -> list[Append]:
    """The event at the destination, one hop further; none at the end of a chain."""
    if task.event.hops >= MAX_HOPS:
        return []
    region = task.destination.region
    event = Event(
        id=event_id, time=now, origin=task.chain.origin, hops=task.event.hops + 1,
        cause=Cause.ARRIVAL, place=task.destination.name, region=region, action=action,
        repository=task.destination_repository, tag=task.tag, digest=digest, occurred_at=now,
        rules_rev=task.rules_rev,
    )  # fmt: skip
    return [Append(topics.events(region), event.key, codec.encode(event))]
