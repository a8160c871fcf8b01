"""How many deletions of a rule are allowed in a window, and which are held for a human."""

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from consumer.deletion.rate_limit import (
    ALWAYS,
    WINDOW_SECONDS,
    DeletionRateLimit,
    may_delete,
    may_prune,
    prune_refusal,
)
from consumer.task import Task
from mesh.rules.matching.compiled_rule import CompiledRule
from schemas.events import Action, Event, OrphanedTagCount, PartOf
from schemas.names import Account, ObjectName, PlaceName, Region, Repository, Tag
from schemas.rules import Rule
from schemas.topology import Instance, Place

NOW = datetime(2026, 3, 1, tzinfo=UTC)
APP = Repository("game/app")


def place(name: str) -> Place:
    return Instance(
        name=ObjectName(name), account=Account("game"), region=Region("eu"), url="http://127.0.0.1:1"
    ).as_place()


def task(number: int, *, rule: str = "r", share: int = 20, repository: Repository = APP) -> Task:
    tag = Tag(f"v{number}")
    event = Event(
        id=f"{rule}-{number}", time=NOW, action=Action.TAG_DELETE, place=PlaceName("a"), region=Region("eu"),
        repository=repository, tag=tag, occurred_at=NOW, rules_rev=0, origin=PlaceName("a"),
    )  # fmt: skip
    declared = Rule(
        name=ObjectName(rule),
        source=ObjectName("a"),
        destination=ObjectName("b"),
        deletion=True,
        deletion_share=share,
    )
    return Task(
        event=event, compiled=CompiledRule(declared), source=place("a"), destination=place("b"), repository=repository,
        destination_repository=repository, tag=tag, digest=None, rules_rev=0, operation="delete",
    )  # fmt: skip


def allowed(limit: DeletionRateLimit, tasks, *, at: float = 0.0) -> int:
    """How many of the tasks were let through."""
    return sum(limit.refusal(one, at) is None for one in tasks)


@given(matched=st.integers(0, 200), share=st.integers(0, 100), wanted=st.integers(0, 200))
def test_what_is_deleted_is_within_the_share_or_within_twenty(matched: int, share: int, wanted: int) -> None:
    limit = DeletionRateLimit()
    limit.count(task(0, share=share), matched)
    went = allowed(limit, [task(number, share=share) for number in range(wanted)])
    assert went <= max(ALWAYS, share * matched // 100)
    assert went == min(wanted, max(ALWAYS, share * matched // 100))


@given(before=st.integers(0, 5000), matched=st.integers(0, 5000), share=st.integers(0, 99))
def test_a_larger_share_and_fewer_deletions_never_hold_more(before: int, matched: int, share: int) -> None:
    if may_delete(before, matched, share):
        assert may_delete(before, matched, share + 1)
        assert may_delete(max(0, before - 1), matched, share)


def test_a_held_one_says_what_to_do() -> None:
    limit = DeletionRateLimit()
    limit.count(task(0), 50)
    assert allowed(limit, [task(number) for number in range(20)]) == 20
    message = limit.refusal(task(20), 0.0)
    assert message is not None
    assert "20 of 50 tags" in message
    assert f"regmesh retry {task(20).task_id}" in message


def test_another_attempt_of_one_counts_once() -> None:
    limit = DeletionRateLimit()
    limit.count(task(0), 30)
    assert allowed(limit, [task(1)] * 50) == 50
    assert allowed(limit, [task(number) for number in range(2, 40)]) == 19


def test_each_rule_is_counted_by_itself_over_all_its_repositories() -> None:
    limit = DeletionRateLimit()
    other = Repository("game/web")
    limit.count(task(0), 100)
    limit.count(task(0, repository=other), 100)
    assert allowed(limit, [task(number) for number in range(60)]) == 40
    assert limit.refusal(task(1, rule="another"), 0.0) is None


def test_ten_minutes_later_it_is_another_window() -> None:
    limit = DeletionRateLimit()
    limit.count(task(0), 30)
    assert allowed(limit, [task(number) for number in range(30)]) == 20
    assert limit.has_counted(task(0), WINDOW_SECONDS - 1)
    assert not limit.has_counted(task(0), WINDOW_SECONDS)  # counted anew
    limit.count(task(0), 10)
    assert allowed(limit, [task(number) for number in range(30)], at=WINDOW_SECONDS) == 20


def test_a_digests_tags_are_counted_one_by_one() -> None:
    limit = DeletionRateLimit()
    limit.count(task(0), 10)
    named = [replace(task(0), tag=Tag(f"t{number}")) for number in range(25)]
    assert allowed(limit, named) == 20


counted = st.tuples(st.integers(1, 5000), st.integers(0, 5000)).map(
    lambda it: OrphanedTagCount(tags=it[0], of=sum(it))
)


@given(found=counted, share=st.integers(0, 100))
def test_orphaned_tags_are_deleted_all_or_none(found: OrphanedTagCount, share: int) -> None:
    listed = found.of - found.tags
    within = found.tags <= ALWAYS or found.tags * 100 <= share * found.of
    assert may_prune(found, share) == (listed > 0 and within)


@given(found=counted, share=st.integers(0, 99), more=st.integers(0, 5000))
def test_what_the_instance_still_shows_and_a_larger_share_never_hold_more(
    found: OrphanedTagCount, share: int, more: int
) -> None:
    if may_prune(found, share):
        assert may_prune(found, share + 1)
        assert may_prune(OrphanedTagCount(tags=found.tags, of=found.of + more), share)
        assert may_prune(OrphanedTagCount(tags=1, of=found.of), share)


def surplus(found: OrphanedTagCount | None, share: int) -> Task:
    part = PartOf(execution_id="e", rule=PlaceName("r"), trigger="reconcile", surplus=found)
    one = task(1, share=share)
    return replace(one, event=one.event.model_copy(update={"part_of": part}))


def test_a_replica_follows_all_that_is_announced_and_a_fifth_of_what_is_found() -> None:
    assert prune_refusal(surplus(OrphanedTagCount(tags=200, of=1000), 100)) is None
    message = prune_refusal(surplus(OrphanedTagCount(tags=201, of=1000), 100))
    assert message is not None
    assert "201 of 1000 tags" in message
    assert "20 %" in message
    assert f"regmesh retry {surplus(None, 100).task_id}" in message
    assert prune_refusal(surplus(OrphanedTagCount(tags=101, of=1000), 10)) is not None


def test_orphaned_tags_that_were_not_counted_are_held() -> None:
    assert prune_refusal(surplus(None, 100)) is not None
    assert prune_refusal(task(1)) is not None
