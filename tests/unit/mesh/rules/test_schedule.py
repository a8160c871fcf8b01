"""When a scheduled rule runs, and which schedules are refused when declared."""

from datetime import UTC, datetime, timedelta

import pytest

from mesh.rules.schedule import BadSchedule, next_tick
from mesh.rules.validation.declarations import judge
from schemas.rules import Scheduled

NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
PLACES = {
    "regions": [{"name": "beijing", "jurisdiction": "cn"}],
    "instances": [
        {"name": name, "account": "game", "region": "beijing", "url": f"http://{name}:5000"}
        for name in ("a", "b")
    ],
}


def _problems(**fields: object) -> list[tuple[str, str]]:
    rule = {"name": "r", "source": "a", "destination": "b", **fields}
    return [(problem.where, problem.message) for problem in judge({**PLACES, "rules": [rule]})[1]]


@pytest.mark.parametrize(
    ("cron", "zone", "expected"),
    [
        ("0 3 * * *", "UTC", datetime(2026, 3, 2, 3, tzinfo=UTC)),
        ("*/15 * * * *", "UTC", datetime(2026, 3, 1, 8, 45, tzinfo=UTC)),
        ("0 3 * * *", "Asia/Shanghai", datetime(2026, 3, 1, 19, tzinfo=UTC)),
        ("0 0 29 2 *", "UTC", datetime(2028, 2, 29, tzinfo=UTC)),
    ],
)
def test_the_next_tick_is_in_the_rules_zone(cron: str, zone: str, expected: datetime) -> None:
    assert next_tick(Scheduled(type="scheduled", cron=cron, timezone=zone), NOW) == expected


@pytest.mark.parametrize("cron", ["30 2 * * *", "0 2 * * *", "*/15 * * * *", "30 2,14 * * *", "0 * * * *"])
def test_a_tick_is_never_before_the_time_that_it_follows(cron: str) -> None:
    """Through the hour that comes twice, to the second: 02:00 to 03:00 in Berlin, summer time and then not."""
    trigger = Scheduled(type="scheduled", cron=cron, timezone="Europe/Berlin")
    for second in range(0, 3 * 3600, 97):
        now = datetime(2026, 10, 24, 23, 30, tzinfo=UTC) + timedelta(seconds=second)
        assert next_tick(trigger, now) > now


def test_an_hour_that_summer_time_skips_runs_all_the_same() -> None:
    trigger = Scheduled(type="scheduled", cron="30 2 * * *", timezone="Europe/Berlin")
    before = datetime(2026, 3, 28, 12, tzinfo=UTC)
    assert next_tick(trigger, before) == datetime(2026, 3, 29, 1, tzinfo=UTC)  # 03:00 there


@pytest.mark.parametrize(
    ("cron", "zone", "field"),
    [
        ("0 0 31 2 *", "UTC", "cron"),
        ("0 0 31 2,4,6 *", "UTC", "cron"),
        ("hourly", "UTC", "cron"),
        ("61 * * * *", "UTC", "cron"),
        ("0 3 * * *", "Mars/Olympus", "timezone"),
        ("0 3 * * *", "../etc/passwd", "timezone"),
    ],
)
def test_what_can_never_run_is_refused_when_declared(cron: str, zone: str, field: str) -> None:
    with pytest.raises(BadSchedule):
        next_tick(Scheduled(type="scheduled", cron=cron, timezone=zone), NOW)
    ((where, message),) = _problems(trigger={"type": "scheduled", "cron": cron, "timezone": zone})
    assert where == f"rules[0].trigger.{field}"
    assert (cron if field == "cron" else zone) in message


@pytest.mark.parametrize(
    ("fields", "where", "expected_message"),
    [
        (
            {"trigger": {"type": "schedule", "cron": "0 3 * * *"}},
            "rules[0].trigger.type",
            "did you mean 'scheduled'",
        ),
        ({"trigger": {"type": "scheduled"}}, "rules[0].trigger.cron", "is required"),
        ({"trigger": {"type": "manual", "cron": "0 3 * * *"}}, "rules[0].trigger.cron", "has no 'cron'"),
        ({"trigger": {"type": "manual"}, "backfill": True}, "rules[0].backfill", "event_based"),
    ],
)
def test_a_wrong_trigger_is_reported_with_its_path(
    fields: dict[str, object], where: str, expected_message: str
) -> None:
    ((found, message),) = _problems(**fields)
    assert found == where
    assert expected_message in message


def test_each_trigger_is_taken() -> None:
    for trigger in (
        {"type": "event_based"},
        {"type": "manual"},
        {"type": "scheduled", "cron": "0 3 * * 1-5"},
    ):
        assert _problems(trigger=trigger) == []
    assert _problems(backfill=True) == []
