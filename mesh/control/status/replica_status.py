"""Decides the status of a replica from what control knows of it. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from mesh.control.executions.returns import Comparison, Gap, GapCause
from schemas.completions import READY, DestinationBacklog, Heartbeat, Status
from schemas.names import PlaceName, Region

_FILL_FIELDS = (
    "id", "status", "start_time", "end_time", "total", "succeed", "skipped", "refused", "failed", "stopped",
    "in_progress",
)  # fmt: skip


class ReplicaState(StrEnum):
    """The states that the API and the metrics show."""

    SYNCING = "Syncing"
    SYNCED = "Synced"
    FAILED = "Failed"


class FailureCause(StrEnum):
    """What an operator has to look at."""

    REGISTRY = "registry"
    AGENTS = "agents"
    FILL = "fill"
    TASKS = "tasks"
    CONTENT = "content"


@dataclass(frozen=True, slots=True)
class ReplicaFacts:
    """What is known of a replica.

    Attributes:
        name: The replica.
        region: Its region.
        now: The present time.
        status_is_read: Whether the region's status topic was read; for a moment after control started it was not.
        has_live_agent: Whether its region has a live agent.
        heartbeats: Of the live agents of its region; without any, of those that were live last.
        fill: Its newest backfill as `/executions` shows it.
        filled_since: Whether a later run over the whole replica succeeded.
        failed: The number of tags that failed and were not repaired since.
        foreign: The number of tags with other content than the instance's, which were left alone.
        gap: The time in which notifications of the instance may have been lost; None when it was compared since.
        comparison: How far the comparison after that is.
    """

    name: PlaceName
    region: Region
    now: datetime
    status_is_read: bool
    has_live_agent: bool
    heartbeats: Collection[Heartbeat]
    fill: Mapping[str, Any] | None
    filled_since: bool
    failed: int
    foreign: int = 0
    gap: Gap | None = None
    comparison: Comparison = Comparison.PENDING


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """The status of a replica.

    `lag_seconds` is the age of the oldest change that is not applied, at most that while no agent is live, and None
    when no agent ever reported.
    """

    state: ReplicaState
    reason: str | None
    cause: FailureCause | None
    lag_seconds: float | None
    tasks_left: int
    bytes_left: int
    fill: Mapping[str, Any] | None


def replica_status(facts: ReplicaFacts) -> ReplicaStatus:
    """Returns the status that follows from the facts."""
    waiting = [found for beat in facts.heartbeats if (found := beat.waiting.get(str(facts.name))) is not None]
    listed = facts.fill["in_progress"] if facts.fill is not None else 0
    tasks_left = max(sum(one.tasks for one in waiting), listed)
    cause, failure = _failure(facts) or (None, None)
    is_busy = tasks_left or _is_filling(facts) or facts.gap is not None or not facts.status_is_read
    healthy = ReplicaState.SYNCING if is_busy else ReplicaState.SYNCED
    return ReplicaStatus(
        state=healthy if cause is None else ReplicaState.FAILED,
        reason=_why_syncing(facts, tasks_left) if cause is None else failure,
        cause=cause,
        lag_seconds=_lag(facts, waiting),
        tasks_left=tasks_left,
        bytes_left=sum(one.bytes_left for one in waiting),
        fill={field: facts.fill[field] for field in _FILL_FIELDS} if facts.fill is not None else None,
    )


def _failure(facts: ReplicaFacts) -> tuple[FailureCause, str] | None:
    """Returns the first failure, in the order in which they have to be repaired."""
    if facts.status_is_read and not facts.has_live_agent:
        return FailureCause.AGENTS, f"no agent runs in region {facts.region}"
    states = sorted(beat.places.get(str(facts.name), READY) for beat in facts.heartbeats)
    if states and states[0] != READY:  # `Failed` sorts first: one failing agent is enough
        return FailureCause.REGISTRY, states[0].removeprefix("Failed: ")
    if facts.failed:
        tags = f"{facts.failed} tags" if facts.failed > 1 else "1 tag"
        return FailureCause.TASKS, f"{tags} failed and no later task has succeeded"
    if facts.foreign:
        tags = f"{facts.foreign} tags hold" if facts.foreign > 1 else "1 tag holds"
        return (
            FailureCause.CONTENT,
            f"{tags} other content than the instance; it was there before and is kept",
        )
    return _fill_failure(facts) or _comparison_failure(facts)


def _comparison_failure(facts: ReplicaFacts) -> tuple[FailureCause, str] | None:
    if facts.gap is None or facts.comparison is not Comparison.FAILED:
        return None
    return FailureCause.FILL, f"it was not compared completely since {_start_of(facts.gap)}"


def _fill_failure(facts: ReplicaFacts) -> tuple[FailureCause, str] | None:
    fill = facts.fill
    if fill is None or facts.filled_since:
        return None
    if fill["status"] == Status.STOPPED:
        return FailureCause.FILL, "the fill was stopped before its end"
    if fill["status"] == Status.FAILED and fill["error"] is not None:
        return FailureCause.FILL, f"the fill failed: {fill['error']['message']}"
    return None  # its failed tasks were repaired since


def _is_filling(facts: ReplicaFacts) -> bool:
    return facts.fill is None or facts.fill["status"] == Status.IN_PROGRESS


def _why_syncing(facts: ReplicaFacts, tasks_left: int) -> str | None:
    if not facts.status_is_read:
        return "the status of its agents is being read"
    if facts.fill is None:
        return "the fill has not started"
    if facts.fill["status"] == Status.IN_PROGRESS:
        return "the fill is in progress"
    if facts.gap is not None:
        return _why_uncompared(facts.gap)
    return "pushes are being copied" if tasks_left else None


def _why_uncompared(gap: Gap) -> str:
    if gap.ended is None and gap.cause is GapCause.UNREACHABLE:
        return f"its instance's registry has not answered since {_clock_time(gap.since)}"
    if gap.ended is None:
        return "no agent has reported the state of its instance's registry since control started"
    return f"comparing after {_start_of(gap)}"


def _start_of(gap: Gap) -> str:
    """Names what happened, with its time: `control started at 2026-03-01 08:00:00`."""
    if gap.cause is GapCause.STARTED:
        return f"control started at {_clock_time(gap.since)}"
    if gap.cause is GapCause.RESTARTED:
        return f"its instance's registry was seen to have restarted at {_clock_time(gap.since)}"
    until = f" to {_clock_time(gap.ended)}" if gap.ended is not None else ""
    return f"its instance's registry did not answer from {_clock_time(gap.since)}{until}"


def _clock_time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"


def _lag(facts: ReplicaFacts, waiting: Collection[DestinationBacklog]) -> float | None:
    """Without a live agent the lag grows from the last heartbeat, or from what was waiting then."""
    oldest = [one.oldest for one in waiting if one.oldest is not None]
    if facts.has_live_agent:
        return _age(min(oldest), facts.now) if oldest else 0.0
    oldest += [max(beat.time for beat in facts.heartbeats)] if facts.heartbeats else []
    return _age(min(oldest), facts.now) if oldest else None


def _age(then: datetime, now: datetime) -> float:
    return round(max(0.0, (now - then).total_seconds()), 3)
