"""How a replica does, from what control sees of it. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from schemas.completions import DestinationBacklog, Heartbeat, Status
from schemas.names import PlaceName, Region

_READY = "Ready"


class State(StrEnum):
    SYNCING = "Syncing"
    SYNCED = "Synced"
    FAILED = "Failed"


class Cause(StrEnum):
    """What a human has to look at."""

    REGISTRY = "registry"
    AGENTS = "agents"
    FILL = "fill"
    TASKS = "tasks"
    CONTENT = "content"


@dataclass(frozen=True, slots=True)
class Sight:
    """`known`: what agents of its region say was read; for a moment after control started it was not.

    `told`: heartbeats of agents of its region, of those that live, or when none does of those that lived last.

    `fill` is the newest backfill as `/executions` shows it, and `filled_since` says that a later run of all went well;
    `failed` are tags that failed and that nothing made good since, `others` those that were left with other content.
    """

    name: PlaceName
    region: Region
    now: datetime
    known: bool
    lives: bool
    told: Collection[Heartbeat]
    fill: Mapping[str, Any] | None
    filled_since: bool
    failed: int
    others: int = 0


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """`lag_seconds` is None when nothing was ever told; while no agent lives it is the most that it can be."""

    state: State
    reason: str | None
    cause: Cause | None
    lag_seconds: float | None
    tasks_left: int
    bytes_left: int
    fill: Mapping[str, Any] | None


def judge(sight: Sight) -> ReplicaStatus:
    waiting = [found for beat in sight.told if (found := beat.waiting.get(str(sight.name))) is not None]
    listed = sight.fill["in_progress"] if sight.fill is not None else 0
    tasks_left = max(sum(one.tasks for one in waiting), listed)
    failure = _failure(sight)
    is_busy = tasks_left or _is_filling(sight) or not sight.known
    healthy = State.SYNCING if is_busy else State.SYNCED
    return ReplicaStatus(
        state=State.FAILED if failure is not None else healthy,
        reason=failure[1] if failure is not None else _why_syncing(sight, tasks_left),
        cause=failure[0] if failure is not None else None,
        lag_seconds=_lag(sight, waiting),
        tasks_left=tasks_left,
        bytes_left=sum(one.bytes_left for one in waiting),
        fill=_shown(sight.fill),
    )


def _failure(sight: Sight) -> tuple[Cause, str] | None:
    """The first that somebody has to see to."""
    if sight.known and not sight.lives:
        return Cause.AGENTS, f"no agent runs in region {sight.region}"
    states = sorted(beat.places.get(str(sight.name), _READY) for beat in sight.told)
    if (
        states and states[0] != _READY
    ):  # among agents that do not agree the one that fails is told: F before R
        return Cause.REGISTRY, states[0].removeprefix("Failed: ")
    if sight.failed:
        tags = f"{sight.failed} tags" if sight.failed > 1 else "1 tag"
        return Cause.TASKS, f"{tags} failed and nothing has made them good since"
    if sight.others:
        tags = f"{sight.others} tags hold" if sight.others > 1 else "1 tag holds"
        return Cause.CONTENT, f"{tags} what its instance does not have; it was there before, and is left so"
    return _of_fill(sight)


def _of_fill(sight: Sight) -> tuple[Cause, str] | None:
    fill = sight.fill
    if fill is None or sight.filled_since:
        return None
    if fill["status"] == Status.STOPPED:
        return Cause.FILL, "its fill was stopped before its end"
    if fill["status"] == Status.FAILED and fill["error"] is not None:
        return Cause.FILL, f"its fill failed: {fill['error']['message']}"
    return None  # what failed of its tasks was made good


def _is_filling(sight: Sight) -> bool:
    return sight.fill is None or sight.fill["status"] == Status.IN_PROGRESS


def _why_syncing(sight: Sight, tasks_left: int) -> str | None:
    if not sight.known:
        return "what its agents say is being read"
    if sight.fill is None:
        return "its fill has not begun"
    if sight.fill["status"] == Status.IN_PROGRESS:
        return "it is being filled"
    return "pushes are on their way" if tasks_left else None


def _lag(sight: Sight, waiting: Collection[DestinationBacklog]) -> float | None:
    """The age of the oldest that is not applied. When nobody tells any more: since they fell silent, or older."""
    oldest = [one.oldest for one in waiting if one.oldest is not None]
    if not sight.lives:
        oldest += [max(beat.time for beat in sight.told)] if sight.told else []
        return _age(min(oldest), sight.now) if oldest else None
    return _age(min(oldest), sight.now) if oldest else 0.0


def _age(then: datetime, now: datetime) -> float:
    return round(max(0.0, (now - then).total_seconds()), 3)


def _shown(fill: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    counted = (
        "id", "status", "start_time", "end_time", "total", "succeed", "skipped", "refused", "failed", "stopped",
        "in_progress",
    )  # fmt: skip
    return {field: fill[field] for field in counted} if fill is not None else None
