"""Which digest a place holds: records merged in order, twice, late, and from several sources."""

from datetime import datetime, timedelta

import pytest

from mesh.control.images.merge import (
    SeenByTask,
    TagDeleted,
    TagEntry,
    TagKey,
    TagNews,
    merge,
    parse_key,
    referrers_of,
    seen_by,
)
from schemas.completions import Status, TaskError
from schemas.events import Cause
from tests.support.control_site import DIGEST, NOW, completion

OTHER = "sha256:" + "cd" * 32


def entry(digest: str | None, second: int, by: Cause = Cause.NOTIFICATION) -> TagEntry:
    seen_at = None if by is Cause.NOTIFICATION else at(second)
    return TagEntry(digest, at(second), by, second * 1_000_000, seen_at)


def at(second: int) -> datetime:
    return NOW + timedelta(seconds=second)


def after(*news: TagNews, before: TagEntry | None = None) -> TagEntry | None:
    for one in news:
        before = merge(before, one)
    return before


def test_the_newer_replaces_and_the_older_never_does() -> None:
    assert after(entry(DIGEST, 1), entry(OTHER, 2)) == entry(OTHER, 2)
    assert after(entry(OTHER, 2), entry(DIGEST, 1)) == entry(OTHER, 2)


def test_the_same_digest_keeps_its_time_and_what_an_agent_saw_stays_seen() -> None:
    found = after(entry(DIGEST, 1), entry(DIGEST, 2, Cause.ARRIVAL), entry(DIGEST, 3))
    assert found == TagEntry(DIGEST, at(1), Cause.ARRIVAL, 3_000_000, at(2))


def test_an_agents_record_counts_also_after_the_registrys() -> None:
    found = after(entry(DIGEST, 70), entry(DIGEST, 69, Cause.ARRIVAL))
    assert found == TagEntry(DIGEST, at(70), Cause.ARRIVAL, 70_000_000, at(69))
    assert after(entry(DIGEST, 70), entry(DIGEST, 9, Cause.ARRIVAL)) == entry(DIGEST, 70)  # of another time


def test_a_digest_that_comes_back_is_there_since_then() -> None:
    found = after(entry(DIGEST, 1, Cause.ARRIVAL), entry(OTHER, 2), entry(DIGEST, 3))
    assert found == entry(DIGEST, 3)  # and no agent saw it this time


def test_a_tombstone_deletes_a_tag_and_older_records_do_not_bring_it_back() -> None:
    deleted = after(entry(OTHER, 1), entry(DIGEST, 2), TagDeleted(at(5)))
    assert deleted is not None
    assert (deleted.digest, deleted.since) == (None, at(5))
    assert after(entry(OTHER, 1), TagDeleted(at(9)), before=deleted) == deleted
    assert after(entry(DIGEST, 6), before=deleted) == entry(DIGEST, 6)
    assert after(TagDeleted(at(5))) == TagEntry(None, at(5), Cause.NOTIFICATION, 0)
    assert after(TagDeleted(at(5)), entry(DIGEST, 4)) == entry(
        DIGEST, 4
    )  # it comes behind it: their clocks are two


@pytest.mark.parametrize("again", [1, 2, 3, 4])
def test_reading_again_in_order_ends_in_the_same_entry(again: int) -> None:
    news = [entry(DIGEST, 1), TagDeleted(at(2)), entry(OTHER, 3, Cause.ARRIVAL), entry(OTHER, 4)]
    once = after(*news)
    twice = after(*news[-again:], before=once)
    assert twice is not None
    assert once is not None
    assert (twice.digest, twice.version) == (once.digest, once.version) == (OTHER, 4_000_000)


def test_what_a_task_saw_at_its_source_counts_unless_something_newer_is_known() -> None:
    seen = entry(DIGEST, 5, Cause.LISTING)
    assert after(SeenByTask(seen)) == seen
    assert after(SeenByTask(seen), before=entry(OTHER, 4)) == seen  # the registry did not notify it
    assert after(SeenByTask(seen), before=entry(OTHER, 6)) == entry(OTHER, 6)
    for deleted in (after(entry(DIGEST, 1), TagDeleted(at(6))), after(TagDeleted(at(6)))):
        assert after(SeenByTask(seen), before=deleted) == deleted


def test_what_a_task_saw_at_its_destination_counts_unless_the_tag_was_deleted_since() -> None:
    seen = entry(DIGEST, 5, Cause.ARRIVAL)
    assert after(entry(DIGEST, 6), SeenByTask(seen)) == TagEntry(
        DIGEST, at(6), Cause.ARRIVAL, 6_000_000, at(5)
    )
    deleted = after(entry(DIGEST, 1), TagDeleted(at(6)))
    assert after(SeenByTask(seen), before=deleted) == deleted
    assert after(SeenByTask(entry(DIGEST, 7, Cause.ARRIVAL)), before=deleted) == entry(
        DIGEST, 7, Cause.ARRIVAL
    )


def test_a_task_that_copied_a_tag_or_found_it_saw_both_ends() -> None:
    source, there = (
        TagKey("game-cn", "game/server", "1.0-global"),
        TagKey("game-eu", "game/server", "1.0-global"),
    )
    expected = {source: entry(DIGEST, 5, Cause.LISTING), there: entry(DIGEST, 9, Cause.ARRIVAL)}
    found = {key: seen.entry for key, seen in seen_by(completion(9, lag_ms=4000))}
    assert {key: (it.digest, it.since, it.written_by) for key, it in found.items()} == {
        key: (it.digest, it.since, it.written_by) for key, it in expected.items()
    }
    error = TaskError(code="already_there", side="mesh", message="there")
    assert len(list(seen_by(completion(9, Status.SKIPPED, error=error)))) == 2
    rebuilt = dict(seen_by(completion(9, rebuilt_from=OTHER)))
    assert (rebuilt[source].entry.digest, rebuilt[there].entry.digest) == (OTHER, DIGEST)


def test_a_task_that_ends_after_an_announcement_has_seen_what_was_announced() -> None:
    announced = entry(DIGEST, 5)  # of the push that the task copied: it is as old as what the task says
    copied = dict(seen_by(completion(9, lag_ms=4000)))[TagKey("game-cn", "game/server", "1.0-global")]
    found = merge(announced, copied)
    assert found == TagEntry(DIGEST, at(5), Cause.NOTIFICATION, 5_000_000, at(9))
    assert found is not None
    assert merge(entry(OTHER, 5), copied) == entry(OTHER, 5)  # a newer push was announced meanwhile
    assert merge(entry(DIGEST, 100), copied) == entry(DIGEST, 100)  # nobody has looked since this one
    assert merge(found, announced) == found


def test_a_newer_announcement_of_another_digest_was_not_seen() -> None:
    found = after(entry(DIGEST, 1, Cause.ARRIVAL), entry(OTHER, 2))
    assert found is not None
    assert (found.digest, found.seen_at) == (OTHER, None)


@pytest.mark.parametrize(("trigger", "seen_at"), [("event_based", None), ("reconcile", at(5))])
def test_a_task_that_found_everything_in_place_saw_its_source_only_in_a_listing(trigger, seen_at) -> None:
    error = TaskError(code="already_there", side="mesh", message="there")
    end = completion(9, Status.SKIPPED, error=error, lag_ms=4000, trigger=trigger)
    found = {key.place: seen.entry for key, seen in seen_by(end)}
    assert (found["game-cn"].digest, found["game-cn"].seen_at) == (DIGEST, seen_at)
    assert found["game-eu"].seen_at == at(9)


@pytest.mark.parametrize(
    "changes",
    [
        {"status": Status.FAILED},
        {"status": Status.SKIPPED},
        {"operation": "delete", "tag": None},
        {"operation": "delete", "status": Status.SKIPPED},
        {"tag": None},
        {"subject": OTHER},
        {"digest": None},
    ],
)
def test_other_tasks_saw_nothing(changes) -> None:
    changes = {"status": Status.SUCCEED} | changes
    assert list(seen_by(completion(9, changes.pop("status"), **changes))) == []


def test_a_task_that_deleted_a_tag_saw_that_its_source_did_not_have_it_when_it_started() -> None:
    end = completion(9, operation="delete")
    ((key, seen),) = seen_by(end)
    assert (key, seen.entry.digest, seen.entry.since) == (
        TagKey("game-cn", "game/server", "1.0-global"),
        None,
        end.start_time,
    )
    started = (end.start_time - NOW).total_seconds()
    assert after(seen, before=entry(DIGEST, int(started) - 1)) == seen.entry
    pushed_since = entry(OTHER, int(started) + 1)
    assert after(seen, before=pushed_since) == pushed_since


def test_referrers_are_of_the_image_or_of_the_subject_of_a_referrer() -> None:
    assert list(referrers_of(completion(attached=(OTHER,)))) == [(DIGEST, OTHER)]
    assert list(referrers_of(completion(attached=(DIGEST,), subject=OTHER))) == [(OTHER, DIGEST)]
    assert list(referrers_of(completion(attached=(OTHER,), operation="delete"))) == []


@pytest.mark.parametrize(
    "text", ["", "cn", "cn/app", "cn:v1", "/app:v1", "cn/:v1", "cn/app:", "cn/app:\0", "CN/a:b"]
)
def test_a_bad_key(text: str) -> None:
    assert parse_key(text) is None


def test_the_key_of_a_replicas_tag() -> None:
    assert parse_key("cn@shanghai/game/app:v1") == TagKey("cn@shanghai", "game/app", "v1")
