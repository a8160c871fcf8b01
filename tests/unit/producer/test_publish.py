"""From events to the log's records."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from producer.publish import TagVersions, records_of
from schemas.codec import decode
from schemas.events import Action, Cause, Event, TagState
from tests.support.manual_clock import ManualClock

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)
DIGEST = "sha256:" + "ab" * 32


def event(action: Action, **changes: object) -> Event:
    fields = {"tag": "1.0", "digest": DIGEST, **changes}
    return Event(
        id="e1",
        time=NOW,
        origin="game-cn",
        action=action,
        place="game-cn",
        region="beijing",
        repository="game/server",
        occurred_at=NOW,
        rules_rev=3,
        **fields,
    )


def of(one: Event) -> list[tuple[str, str, bytes | None]]:
    return [tuple(record) for record in records_of([one], lambda: 7)]


def test_a_push_by_tag_says_what_the_tag_is():
    (topic, key, raw), (tag_topic, tag_key, tag_raw) = of(event(Action.MANIFEST_PUSH))
    assert (topic, key) == ("mesh.beijing.events", "game-cn/game/server")
    assert decode(raw, Event) == event(Action.MANIFEST_PUSH)
    assert (tag_topic, tag_key) == ("mesh.beijing.tags", "game-cn/game/server:1.0")
    state = decode(tag_raw, TagState)
    assert (state.key, state.digest, state.tag_version) == (tag_key, DIGEST, 7)
    assert (state.written_by, state.origin, state.hops, state.time) == (Cause.NOTIFICATION, "game-cn", 0, NOW)


def test_a_deleted_tag_leaves_a_tombstone():
    _, tag = of(event(Action.TAG_DELETE, digest=None))
    assert tag == ("mesh.beijing.tags", "game-cn/game/server:1.0", None)


def test_what_names_no_tag_changes_none():
    for action in Action:
        assert len(of(event(action, tag=None))) == 1
    for action in (Action.BLOB_PUSH, Action.BLOB_MOUNT, Action.MANIFEST_DELETE, Action.REPOSITORY_DELETE):
        assert len(of(event(action))) == 1


def test_the_order_of_an_envelope_is_kept():
    pushes = [event(Action.MANIFEST_PUSH, tag=f"{n}") for n in range(5)]
    records = records_of(pushes, iter(range(100)).__next__)
    assert [decode(record.value, Event).tag for record in records[::2]] == ["0", "1", "2", "3", "4"]
    assert [decode(record.value, TagState).tag_version for record in records[1::2]] == [0, 1, 2, 3, 4]


class SetClock(ManualClock):
    at = NOW

    def now(self) -> datetime:
        return self.at


@given(st.lists(st.integers(-(10**9), 10**9), max_size=50))
def test_versions_only_grow_whatever_the_clock_does(jumps):
    clock = SetClock(NOW)
    versions = TagVersions(clock)
    seen = []
    for jump in jumps:
        clock.at = NOW + timedelta(microseconds=jump)
        seen.append(versions())
        assert seen[-1] >= int(clock.at.timestamp() * 1_000_000)
    assert seen == sorted(set(seen))
