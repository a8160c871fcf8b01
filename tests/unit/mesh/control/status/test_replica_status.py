"""A replica's status from every kind of sight of it."""

from datetime import timedelta
from typing import Any

import pytest

from mesh.control.status.replica_status import Cause, Sight, State, judge
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


def sight(**changes: Any) -> Sight:
    well: dict[str, Any] = {
        "name": NAME, "region": Region("shanghai"), "now": NOW, "known": True, "lives": True, "told": [beat()],
        "fill": fill(), "filled_since": False, "failed": 0,
    }  # fmt: skip
    return Sight(**well | changes)


def test_all_is_well() -> None:
    status = judge(sight())
    assert (status.state, status.reason, status.cause) == (State.SYNCED, None, None)
    assert (status.lag_seconds, status.tasks_left, status.bytes_left) == (0.0, 0, 0)
    assert status.fill is not None
    assert (status.fill["status"], status.fill["total"], "sent" in status.fill) == ("Succeed", 4, False)


def test_what_waits_with_several_agents_is_summed_and_the_oldest_counts() -> None:
    told = [beat("a", waiting=waits(2, 40, 100)), beat("b", waiting=waits(1, 90, 50))]
    status = judge(sight(told=told))
    assert (status.state, status.reason) == (State.SYNCING, "pushes are on their way")
    assert (status.lag_seconds, status.tasks_left, status.bytes_left) == (90.0, 3, 150)


def test_a_fill_that_has_not_begun_or_goes_on() -> None:
    assert judge(sight(fill=None)).reason == "its fill has not begun"
    status = judge(sight(fill=fill("InProgress", in_progress=300), told=[beat(waiting=waits(20, 1))]))
    assert (status.state, status.reason, status.tasks_left) == (State.SYNCING, "it is being filled", 300)


def test_right_after_control_started_nobody_is_said_to_be_gone() -> None:
    status = judge(sight(known=False, lives=False, told=[]))
    assert (status.state, status.reason) == (State.SYNCING, "what its agents say is being read")
    assert status.lag_seconds is None


def test_a_registry_that_fails_for_one_agent_of_the_region() -> None:
    status = judge(sight(told=[beat("a"), beat("b", place="Failed: no answer", waiting=waits(1, 600))]))
    assert (status.state, status.cause, status.reason) == (State.FAILED, Cause.REGISTRY, "no answer")
    assert status.lag_seconds == 600


def test_without_an_agent_the_lag_grows_from_what_was_known_last() -> None:
    busy = judge(sight(lives=False, told=[beat(ago=100, waiting=waits(3, 250))]))
    assert (busy.state, busy.cause, busy.reason) == (
        State.FAILED, Cause.AGENTS, "no agent runs in region shanghai",
    )  # fmt: skip
    assert (busy.lag_seconds, busy.tasks_left) == (250.0, 3)
    assert judge(sight(lives=False, told=[beat(ago=100)])).lag_seconds == 100.0
    assert judge(sight(lives=False, told=[])).lag_seconds is None


@pytest.mark.parametrize(
    ("changes", "cause", "reason"),
    [
        ({"failed": 1}, Cause.TASKS, "1 tag failed and nothing has made them good since"),
        (
            {"failed": 3, "fill": fill("Failed")},
            Cause.TASKS,
            "3 tags failed and nothing has made them good since",
        ),
        (
            {"others": 2},
            Cause.CONTENT,
            "2 tags hold what its instance does not have; it was there before, and is left so",
        ),
        ({"fill": fill("Stopped")}, Cause.FILL, "its fill was stopped before its end"),
        (
            {"fill": fill("Failed", error={"message": "no catalog"})},
            Cause.FILL,
            "its fill failed: no catalog",
        ),
    ],
)
def test_what_failed_and_was_not_made_good(changes: dict[str, Any], cause: Cause, reason: str) -> None:
    status = judge(sight(**changes))
    assert (status.state, status.cause, status.reason) == (State.FAILED, cause, reason)


@pytest.mark.parametrize(
    "changes",
    [
        {"fill": fill("Failed")},  # by tasks, of which no failure is open any more
        {"fill": fill("Stopped"), "filled_since": True},
        {"fill": fill("Failed", error={"message": "no catalog"}), "filled_since": True},
    ],
)
def test_what_was_made_good(changes: dict[str, Any]) -> None:
    assert judge(sight(**changes)).state is State.SYNCED
