"""When a registry counts as returned, and when what follows from it is listed again."""

from datetime import UTC, datetime, timedelta

import pytest

from mesh.control.executions.returns import (
    Comparison,
    Gap,
    GapCause,
    Returns,
    Step,
    WholeListing,
    comparison_since,
    next_step,
)
from schemas.completions import Status

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)
FAILED = "Failed: connection refused"


def ago(
    seconds: float, status: Status = Status.SUCCEED, *, listed: bool = True, error: str | None = None
) -> WholeListing:
    return WholeListing(NOW - timedelta(seconds=seconds), listed, error, status)


def test_a_place_has_returned_when_it_answers_after_it_failed_and_first_when_control_started() -> None:
    returns = Returns(NOW)
    seen = []
    for second, state in enumerate([None, "Ready", "Ready", FAILED, None, FAILED, "Ready", None, "Ready"]):
        now = NOW + timedelta(seconds=second)
        returns.observe(["cn", "other"], {"cn": state} if state else {}, now)
        seen.append(returns.of("cn"))
    sixth = NOW + timedelta(seconds=6)
    assert seen == [None, NOW, NOW, None, None, None, sixth, sixth, sixth]
    assert returns.of("other") is None


@pytest.mark.parametrize(
    ("listings", "step"),
    [
        ([], Step.WAIT),
        ([ago(5)], Step.NOTHING),
        ([ago(5, listed=False)], Step.WAIT),
        ([ago(600)], Step.COMPARE),
        ([ago(600, listed=False)], Step.WAIT),
        ([ago(15)], Step.WAIT),
        ([ago(21)], Step.COMPARE),
        ([ago(21), ago(60)], Step.WAIT),
        ([ago(41), ago(60)], Step.COMPARE),
        ([ago(300 + 10 * one) for one in range(10)], Step.WAIT),
        ([ago(21), ago(4000), ago(5000)], Step.COMPARE),
        ([ago(5, error="unreachable")], Step.WAIT),
        ([ago(21, error="server_fault")], Step.COMPARE),
        ([ago(5, error="unreadable_names")], Step.NOTHING),
    ],
)
def test_a_source_is_listed_again_until_it_was_listed_since_its_return_and_less_and_less_often(
    listings: list[WholeListing], step: Step
) -> None:
    returned = NOW - timedelta(seconds=10)
    assert next_step(listings, returned, NOW) is step


def test_a_gap_lasts_until_the_registry_was_seen_to_answer() -> None:
    returns = Returns(NOW)
    seen = [returns.gap("cn")]
    for second, state in enumerate(["Ready", FAILED, FAILED, None, "Ready", "Ready"], start=1):
        returns.observe(["cn"], {"cn": state} if state else {}, NOW + timedelta(seconds=second))
        seen.append(returns.gap("cn"))
    second, fifth = NOW + timedelta(seconds=2), NOW + timedelta(seconds=5)
    assert [(gap.cause, gap.since, gap.ended) for gap in seen] == [
        (GapCause.STARTED, NOW, None),
        (GapCause.STARTED, NOW, NOW),
        *[(GapCause.UNREACHABLE, second, None)] * 3,
        *[(GapCause.UNREACHABLE, second, fifth)] * 2,
    ]


@pytest.mark.parametrize(
    ("listings", "found"),
    [
        ([], Comparison.PENDING),
        ([ago(11)], Comparison.PENDING),  # before the return
        ([ago(10)], Comparison.DONE),
        ([ago(5, Status.IN_PROGRESS, listed=False)], Comparison.PENDING),
        ([ago(5, Status.IN_PROGRESS)], Comparison.PENDING),  # its tasks have not ended
        ([ago(5, Status.FAILED)], Comparison.DONE),  # its failed tasks are counted elsewhere
        ([ago(5, Status.FAILED, error="unreachable")], Comparison.PENDING),  # it is repeated
        ([ago(5, Status.FAILED, error="unreadable_names")], Comparison.FAILED),
        ([ago(5, Status.STOPPED)], Comparison.FAILED),
        ([ago(2, Status.IN_PROGRESS), ago(5)], Comparison.DONE),
        ([ago(2, Status.STOPPED), ago(5)], Comparison.DONE),
        ([ago(2, Status.IN_PROGRESS), ago(5, Status.STOPPED)], Comparison.PENDING),
    ],
)
def test_a_comparison_is_done_when_a_listing_since_the_return_was_complete_and_its_tasks_have_ended(
    listings: list[WholeListing], found: Comparison
) -> None:
    assert comparison_since(listings, NOW - timedelta(seconds=10)) is found


def test_a_listing_that_fails_again_and_again_is_repeated_less_and_less_often() -> None:
    starts, now = [NOW], NOW
    while now < NOW + timedelta(hours=6):
        now += timedelta(seconds=1)
        newest = [WholeListing(one, True, "unreachable") for one in reversed(starts[-10:])]
        if next_step(newest, NOW, now) is Step.COMPARE:
            starts.append(now)
    assert 12 < len(starts) < 50


def test_another_process_of_a_registry_is_a_gap_unless_it_is_the_first_that_is_known() -> None:
    returns = Returns(NOW)
    seen = []
    for second, names in enumerate([set[str](), {"a"}, {"a"}, {"a", "b"}, {"b"}, {"a", "b"}]):
        returns.observe_processes({"cn": names}, NOW + timedelta(seconds=second))
        seen.append(returns.gap("cn"))
    third = NOW + timedelta(seconds=3)
    started, restarted = Gap(GapCause.STARTED, NOW), Gap(GapCause.RESTARTED, third, third)
    assert seen == [started] * 3 + [restarted] * 3
    assert returns.of("cn") == third


def test_a_gap_whose_end_is_not_known_is_not_ended_by_a_notification() -> None:
    returns = Returns(NOW)
    returns.observe_processes({"cn": {"a"}}, NOW)
    returns.observe(["cn"], {"cn": FAILED}, NOW)
    returns.observe_processes({"cn": {"a", "b"}}, NOW + timedelta(seconds=1))
    assert returns.gap("cn") == Gap(GapCause.UNREACHABLE, NOW)
