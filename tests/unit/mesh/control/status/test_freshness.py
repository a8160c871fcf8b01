"""Whether a freshness promise is kept, how old the oldest push is, and when all is done."""

from datetime import timedelta
from typing import Any

import pytest

from mesh.control.status.freshness import FreshnessFacts, burn_rate, freshness_of, lateness, share
from mesh.control.sync_log.ended_tasks import Kept, TaskCounts
from schemas.completions import Heartbeat, RuleBacklog
from schemas.names import Region
from tests.support.control_site import NOW

NAME = "release-to-eu"


def beat(*, ago: int = 5, rules: dict[str, RuleBacklog] | None = None, agent: str = "a") -> Heartbeat:
    return Heartbeat(
        id=agent, time=NOW - timedelta(seconds=ago), agent=agent, region=Region("frankfurt"), rules_rev=1, running=0,
        rules=rules,
    )  # fmt: skip


def waits(tasks: int, ago: int | None) -> dict[str, RuleBacklog]:
    oldest = NOW - timedelta(seconds=ago) if ago is not None else None
    return {
        NAME: RuleBacklog(tasks=tasks, oldest_push=oldest),
        "other": RuleBacklog(tasks=99, oldest_push=NOW),
    }


def facts(**changes: Any) -> FreshnessFacts:
    well: dict[str, Any] = {
        "name": NAME, "promise": 60, "now": NOW, "has_live_agent": True, "heartbeats": [beat(rules={})],
        "counts": TaskCounts(), "objective": 0.99,
    }  # fmt: skip
    return FreshnessFacts(**well | changes)


def test_without_any_task_nothing_is_missed_and_no_share_is_known() -> None:
    found = freshness_of(facts())
    assert (found.promise_seconds, found.oldest_push_seconds, found.tasks_left, found.eta_seconds) == (
        60,
        0.0,
        0,
        None,
    )
    assert (found.kept, found.promise_missed) == ({"1h": None, "1d": None}, False)
    assert found.burn_rates == {"5m": 0.0, "30m": 0.0, "1h": 0.0, "6h": 0.0}


def test_without_a_promise_age_and_eta_are_known_and_nothing_is_missed() -> None:
    counts = TaskCounts(ended=10, ended_since=NOW - timedelta(seconds=100))
    found = freshness_of(facts(promise=None, heartbeats=[beat(rules=waits(5, 900))], counts=counts))
    assert (found.oldest_push_seconds, found.tasks_left, found.eta_seconds) == (900.0, 5, 50.0)
    assert (found.promise_missed, dict(found.kept), dict(found.burn_rates)) == (None, {}, {})


@pytest.mark.parametrize(("ago", "missed"), [(60, False), (61, True), (None, False)])
def test_a_push_that_waits_for_longer_than_the_promise_misses_it_now(ago: int | None, missed: bool) -> None:
    found = freshness_of(facts(heartbeats=[beat(rules=waits(1, ago)), beat(agent="b", rules=waits(2, 3))]))
    assert (found.promise_missed, found.tasks_left) == (missed, 3)
    assert found.oldest_push_seconds == (3.0 if ago is None else float(ago))


def test_without_a_live_agent_the_age_grows_from_the_last_heartbeat_or_what_waited_then() -> None:
    idle = freshness_of(facts(has_live_agent=False, heartbeats=[beat(ago=90, rules={})]))
    busy = freshness_of(facts(has_live_agent=False, heartbeats=[beat(ago=90, rules=waits(1, 400))]))
    assert (idle.oldest_push_seconds, idle.promise_missed) == (90.0, True)
    assert busy.oldest_push_seconds == 400.0
    for unknown in ([], [beat()]):  # no agent, or one of an older version
        found = freshness_of(facts(has_live_agent=bool(unknown), heartbeats=unknown))
        assert (found.oldest_push_seconds, found.promise_missed) == (None, False)


@pytest.mark.parametrize(
    ("windows", "window"),
    [
        ({"5m": (100, 80), "1h": (1000, 800)}, "1h"),
        ({"5m": (100, 100), "1h": (1000, 800)}, None),  # it is over
        ({"5m": (100, 80), "1h": (1000, 990)}, None),  # a short one
        ({"5m": (100, 80), "1h": (1000, 880), "30m": (500, 440), "6h": (6000, 5500)}, "6h"),
        ({"30m": (500, 440), "6h": (6000, 5700)}, None),
    ],
)
def test_a_promise_is_missed_when_a_long_and_its_short_window_burn_too_fast(
    windows: dict[str, tuple[int, int]], window: str | None
) -> None:
    counts = TaskCounts(kept={name: Kept(*found) for name, found in windows.items()})
    found = freshness_of(facts(counts=counts))
    assert (found.burning_window, found.promise_missed) == (window, window is not None)


def test_share_and_burn_rate() -> None:
    assert [share(it) for it in (None, Kept(0, 0), Kept(8, 6), Kept(3, 3))] == [None, None, 0.75, 1.0]
    assert [burn_rate(it, 0.99) for it in (None, Kept(0, 0), Kept(100, 99), Kept(4, 0))] == [
        0.0,
        0.0,
        1.0,
        100.0,
    ]


def test_the_eta_follows_the_recent_rate_and_the_fill_counts_too() -> None:
    counts = TaskCounts(ended=30, ended_since=NOW - timedelta(seconds=60))
    assert freshness_of(facts(counts=counts, listed_left=900)).eta_seconds == 1800.0
    just_now = TaskCounts(ended=5, ended_since=NOW)
    assert freshness_of(facts(counts=just_now, listed_left=5)).eta_seconds == 10.0
    assert freshness_of(facts(listed_left=5)).eta_seconds is None  # nothing ended


def test_people_read_how_late_it_is() -> None:
    counts = TaskCounts(30, NOW - timedelta(seconds=60), {"5m": Kept(10, 0), "1h": Kept(40, 10)})
    late = freshness_of(facts(counts=counts, heartbeats=[beat(rules=waits(2, 400))]))
    assert lateness(late) == (
        "a push waits for 400 s, and 2 tasks are left, which takes about 4 s more; "
        "30 of the 40 tasks of the last 1h did not keep it"
    )
