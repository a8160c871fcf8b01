"""A replica's status from every kind of facts."""

from datetime import timedelta
from typing import Any

import pytest

from mesh.control.executions.returns import Comparison, Gap, GapCause
from mesh.control.status.replica_status import FailureCause, ReplicaFacts, ReplicaState, replica_status
from schemas.completions import DestinationBacklog, Heartbeat
from schemas.names import PlaceName, Region
from tests.support.control_site import NOW

NAME = PlaceName("cn@shanghai")


def beat(
    agent: str = "a", *, ago: int = 5, place: str = "Ready", waiting: DestinationBacklog | None = None
) -> Heartbeat:
    found = {str(NAME): waiting} if waiting is not None else {}
    return Heartbeat(
        id=agent, time=NOW - timedelta(seconds=ago), agent=agent, region=Region("shanghai"), rules_rev=1, running=0,
        places={str(NAME): place, "cn": "Failed: the instance is away"},
        waiting=found | {"other": DestinationBacklog(tasks=9)},
    )  # fmt: skip


def waits(tasks: int, ago: int, left: int = 0) -> DestinationBacklog:
    return DestinationBacklog(tasks=tasks, oldest=NOW - timedelta(seconds=ago), bytes_left=left)


def fill(status: str = "Succeed", **changes: Any) -> dict[str, Any]:
    counts = dict.fromkeys(("succeed", "skipped", "refused", "failed", "stopped", "in_progress"), 0)
    times = {"start_time": "2026-03-01T07:00:00Z", "end_time": None}
    return {"id": "e1", "status": status, "total": 4, "error": None, "sent": 7} | counts | times | changes


def facts(**changes: Any) -> ReplicaFacts:
    well: dict[str, Any] = {
        "name": NAME, "region": Region("shanghai"), "now": NOW, "status_is_read": True, "has_live_agent": True,
        "heartbeats": [beat()], "fill": fill(), "filled_since": False, "failed": 0,
    }  # fmt: skip
    return ReplicaFacts(**well | changes)


def test_all_is_well() -> None:
    status = replica_status(facts())
    assert (status.state, status.reason, status.cause) == (ReplicaState.SYNCED, None, None)
    assert (status.lag_seconds, status.tasks_left, status.bytes_left) == (0.0, 0, 0)
    assert status.fill is not None
    assert (status.fill["status"], status.fill["total"], "sent" in status.fill) == ("Succeed", 4, False)


def test_waiting_tasks_of_several_agents_are_summed_and_the_oldest_counts() -> None:
    heartbeats = [beat("a", waiting=waits(2, 40, 100)), beat("b", waiting=waits(1, 90, 50))]
    status = replica_status(facts(heartbeats=heartbeats))
    assert (status.state, status.reason) == (ReplicaState.SYNCING, "pushes are being copied")
    assert (status.lag_seconds, status.tasks_left, status.bytes_left) == (90.0, 3, 150)


def test_a_fill_that_has_not_started_or_is_in_progress() -> None:
    assert replica_status(facts(fill=None)).reason == "the fill has not started"
    status = replica_status(
        facts(fill=fill("InProgress", in_progress=300), heartbeats=[beat(waiting=waits(20, 1))])
    )
    assert (status.state, status.reason, status.tasks_left) == (
        ReplicaState.SYNCING,
        "the fill is in progress",
        300,
    )


def test_right_after_control_started_no_agent_is_reported_missing() -> None:
    status = replica_status(facts(status_is_read=False, has_live_agent=False, heartbeats=[]))
    assert (status.state, status.reason) == (ReplicaState.SYNCING, "the status of its agents is being read")
    assert status.lag_seconds is None


def test_a_registry_that_fails_for_one_agent_of_the_region() -> None:
    status = replica_status(
        facts(heartbeats=[beat("a"), beat("b", place="Failed: no answer", waiting=waits(1, 600))])
    )
    assert (status.state, status.cause, status.reason) == (
        ReplicaState.FAILED,
        FailureCause.REGISTRY,
        "no answer",
    )
    assert status.lag_seconds == 600


def test_without_an_agent_the_lag_grows_from_the_last_report() -> None:
    busy = replica_status(facts(has_live_agent=False, heartbeats=[beat(ago=100, waiting=waits(3, 250))]))
    assert (busy.state, busy.cause, busy.reason) == (
        ReplicaState.FAILED, FailureCause.AGENTS, "no agent runs in region shanghai",
    )  # fmt: skip
    assert (busy.lag_seconds, busy.tasks_left) == (250.0, 3)
    assert replica_status(facts(has_live_agent=False, heartbeats=[beat(ago=100)])).lag_seconds == 100.0
    assert replica_status(facts(has_live_agent=False, heartbeats=[])).lag_seconds is None


@pytest.mark.parametrize(
    ("changes", "cause", "reason"),
    [
        ({"failed": 1}, FailureCause.TASKS, "1 tag failed and no later task has succeeded"),
        (
            {"failed": 3, "fill": fill("Failed")},
            FailureCause.TASKS,
            "3 tags failed and no later task has succeeded",
        ),
        (
            {"foreign": 2},
            FailureCause.CONTENT,
            "2 tags hold other content than the instance; it was there before and is kept",
        ),
        ({"fill": fill("Stopped")}, FailureCause.FILL, "the fill was stopped before its end"),
        (
            {"fill": fill("Failed", error={"message": "no catalog"})},
            FailureCause.FILL,
            "the fill failed: no catalog",
        ),
    ],
)
def test_failures_that_were_not_repaired(changes: dict[str, Any], cause: FailureCause, reason: str) -> None:
    status = replica_status(facts(**changes))
    assert (status.state, status.cause, status.reason) == (ReplicaState.FAILED, cause, reason)


@pytest.mark.parametrize(
    "changes",
    [
        {"fill": fill("Failed")},  # by tasks, of which no failure is open any more
        {"fill": fill("Stopped"), "filled_since": True},
        {"fill": fill("Failed", error={"message": "no catalog"}), "filled_since": True},
    ],
)
def test_failures_that_were_repaired(changes: dict[str, Any]) -> None:
    assert replica_status(facts(**changes)).state is ReplicaState.SYNCED


def unreachable(*, ended: int | None = None) -> Gap:
    """From a minute ago; `ended` is in seconds ago."""
    times = NOW - timedelta(seconds=60), NOW - timedelta(seconds=ended) if ended is not None else None
    return Gap(GapCause.UNREACHABLE, *times)


@pytest.mark.parametrize(
    ("gap", "reason"),
    [
        (
            Gap(GapCause.STARTED, NOW),
            "no agent has reported the state of its instance's registry since control started",
        ),
        (Gap(GapCause.STARTED, NOW, NOW), "comparing after control started at 2026-03-01 08:00:00"),
        (unreachable(), "its instance's registry has not answered since 2026-03-01 07:59:00"),
        (
            unreachable(ended=5),
            "comparing after its instance's registry did not answer from 2026-03-01 07:59:00 to 2026-03-01 07:59:55",
        ),
    ],
)  # fmt: skip
def test_a_replica_that_was_not_compared_since_a_gap_is_not_synced(gap: Gap, reason: str) -> None:
    status = replica_status(facts(gap=gap))
    assert (status.state, status.reason, status.cause) == (ReplicaState.SYNCING, reason, None)
    assert replica_status(facts(gap=gap, fill=fill("InProgress"))).reason == "the fill is in progress"


def test_a_comparison_that_is_not_repeated_makes_a_replica_fail() -> None:
    status = replica_status(facts(gap=unreachable(ended=5), comparison=Comparison.FAILED))
    assert (status.state, status.cause) == (ReplicaState.FAILED, FailureCause.FILL)
    assert status.reason is not None
    assert status.reason.startswith(
        "it was not compared completely since its instance's registry did not answer"
    )
