"""Which digest a place holds: what is told of it merged in order, twice, late, and from several who saw it."""

from datetime import datetime, timedelta

import pytest

from mesh.control.images.merge import Gone, Held, Key, Proven, key_of, merge, proven_by, referrers_of
from schemas.completions import Status, TaskError
from schemas.events import Cause
from tests.support.control_site import DIGEST, NOW, completion

OTHER = "sha256:" + "cd" * 32


def held(digest: str | None, second: int, by: Cause = Cause.NOTIFICATION) -> Held:
    return Held(digest, at(second), by, second * 1_000_000)


def at(second: int) -> datetime:
    return NOW + timedelta(seconds=second)


def after(*news: Held | Gone | Proven, before: Held | None = None) -> Held | None:
    for one in news:
        before = merge(before, one)
    return before


def test_the_newer_replaces_and_the_older_never_does() -> None:
    assert after(held(DIGEST, 1), held(OTHER, 2)) == held(OTHER, 2)
    assert after(held(OTHER, 2), held(DIGEST, 1)) == held(OTHER, 2)


def test_the_same_digest_keeps_its_time_and_what_an_agent_saw_stays_seen() -> None:
    found = after(held(DIGEST, 1), held(DIGEST, 2, Cause.ARRIVAL), held(DIGEST, 3))
    assert found == Held(DIGEST, at(1), Cause.ARRIVAL, 3_000_000)


def test_an_agents_word_counts_also_when_the_registry_was_faster() -> None:
    found = after(held(DIGEST, 70), held(DIGEST, 69, Cause.ARRIVAL))
    assert found == Held(DIGEST, at(70), Cause.ARRIVAL, 70_000_000)
    assert after(held(DIGEST, 70), held(DIGEST, 9, Cause.ARRIVAL)) == held(DIGEST, 70)  # of another time


def test_a_digest_that_comes_back_is_held_since_then() -> None:
    found = after(held(DIGEST, 1, Cause.ARRIVAL), held(OTHER, 2), held(DIGEST, 3))
    assert found == held(DIGEST, 3)  # and no agent saw it this time


def test_a_tombstone_ends_it_and_what_is_older_does_not_bring_it_back() -> None:
    gone = after(held(OTHER, 1), held(DIGEST, 2), Gone(at(5)))
    assert gone is not None
    assert (gone.digest, gone.since) == (None, at(5))
    assert after(held(OTHER, 1), Gone(at(9)), before=gone) == gone
    assert after(held(DIGEST, 6), before=gone) == held(DIGEST, 6)
    assert after(Gone(at(5))) == Held(None, at(5), Cause.NOTIFICATION, 0)
    assert after(Gone(at(5)), held(DIGEST, 4)) == held(DIGEST, 4)  # it comes behind it: their clocks are two


@pytest.mark.parametrize("again", [1, 2, 3, 4])
def test_what_is_read_again_in_order_ends_as_it_ended(again: int) -> None:
    news = [held(DIGEST, 1), Gone(at(2)), held(OTHER, 3, Cause.ARRIVAL), held(OTHER, 4)]
    once = after(*news)
    twice = after(*news[-again:], before=once)
    assert twice is not None
    assert once is not None
    assert (twice.digest, twice.version) == (once.digest, once.version) == (OTHER, 4_000_000)


def test_what_a_task_read_at_its_source_counts_where_nothing_newer_was_told() -> None:
    seen = held(DIGEST, 5, Cause.LISTING)
    assert after(Proven(seen)) == seen
    assert after(Proven(seen), before=held(OTHER, 4)) == seen  # the registry did not tell of it
    assert after(Proven(seen), before=held(OTHER, 6)) == held(OTHER, 6)
    for gone in (after(held(DIGEST, 1), Gone(at(6))), after(Gone(at(6)))):
        assert after(Proven(seen), before=gone) == gone


def test_what_a_task_saw_at_its_destination_counts_unless_the_tag_went_since() -> None:
    seen = held(DIGEST, 5, Cause.ARRIVAL)
    assert after(held(DIGEST, 6), Proven(seen)) == Held(DIGEST, at(6), Cause.ARRIVAL, 6_000_000)
    gone = after(held(DIGEST, 1), Gone(at(6)))
    assert after(Proven(seen), before=gone) == gone
    assert after(Proven(held(DIGEST, 7, Cause.ARRIVAL)), before=gone) == held(DIGEST, 7, Cause.ARRIVAL)


def test_a_task_that_copied_or_found_it_proves_what_both_ends_hold() -> None:
    source, there = Key("game-cn", "game/server", "1.0-global"), Key("game-eu", "game/server", "1.0-global")
    expected = {source: held(DIGEST, 5, Cause.LISTING), there: held(DIGEST, 9, Cause.ARRIVAL)}
    found = {key: proven.held for key, proven in proven_by(completion(9, lag_ms=4000))}
    assert {key: (it.digest, it.since, it.written_by) for key, it in found.items()} == {
        key: (it.digest, it.since, it.written_by) for key, it in expected.items()
    }
    error = TaskError(code="already_there", side="mesh", message="there")
    assert len(list(proven_by(completion(9, Status.SKIPPED, error=error)))) == 2
    rebuilt = dict(proven_by(completion(9, rebuilt_from=OTHER)))
    assert (rebuilt[source].held.digest, rebuilt[there].held.digest) == (OTHER, DIGEST)


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
def test_other_ends_prove_nothing(changes) -> None:
    changes = {"status": Status.SUCCEED} | changes
    assert list(proven_by(completion(9, changes.pop("status"), **changes))) == []


def test_a_task_that_deleted_a_tag_proves_that_its_source_did_not_have_it_when_it_began() -> None:
    end = completion(9, operation="delete")
    ((key, proven),) = proven_by(end)
    assert (key, proven.held.digest, proven.held.since) == (
        Key("game-cn", "game/server", "1.0-global"),
        None,
        end.start_time,
    )
    began = (end.start_time - NOW).total_seconds()
    assert after(proven, before=held(DIGEST, int(began) - 1)) == proven.held
    pushed_since = held(OTHER, int(began) + 1)
    assert after(proven, before=pushed_since) == pushed_since


def test_referrers_are_about_the_image_or_about_the_subject_of_what_was_pushed_by_itself() -> None:
    assert list(referrers_of(completion(attached=(OTHER,)))) == [(DIGEST, OTHER)]
    assert list(referrers_of(completion(attached=(DIGEST,), subject=OTHER))) == [(OTHER, DIGEST)]
    assert list(referrers_of(completion(attached=(OTHER,), operation="delete"))) == []


@pytest.mark.parametrize(
    "text", ["", "cn", "cn/app", "cn:v1", "/app:v1", "cn/:v1", "cn/app:", "cn/app:\0", "CN/a:b"]
)
def test_a_key_that_is_none(text: str) -> None:
    assert key_of(text) is None


def test_the_key_of_a_replicas_tag() -> None:
    assert key_of("cn@shanghai/game/app:v1") == Key("cn@shanghai", "game/app", "v1")
