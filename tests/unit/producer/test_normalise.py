"""Notifications of distribution as events; and nothing that it may send makes the normaliser raise."""

import tracemalloc
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.normalise import NORMALISE
from producer.normalise.outcome import Context, Normalised
from schemas.codec import decode, encode
from schemas.events import Action, Event
from schemas.state import KINDS
from schemas.topology import Instance

NOW = datetime(2026, 3, 1, 8, 0, 0, 500_000, tzinfo=UTC)
GAME_CN = Instance(name="game-cn", account="game", region="beijing", url="http://127.0.0.1:5001")
CONTEXT = Context(GAME_CN, 41, NOW)
DIGEST = "sha256:" + "ab" * 32
OCI = "application/vnd.oci.image.manifest.v1+json"


def normalised(*events: object, context: Context = CONTEXT) -> Normalised:
    return NORMALISE["distribution"](orjson.dumps({"events": list(events)}), context)


def sent(action: str = "push", **changes: object) -> dict[str, object]:
    """An event as distribution 2.8.2 sends it (recorded, with other names)."""
    target = {
        "mediaType": OCI,
        "size": 708,
        "digest": DIGEST,
        "length": 708,
        "repository": "game/server",
        "url": f"http://127.0.0.1:5001/v2/game/server/manifests/{DIGEST}",
        "tag": "1.4.2-global",
    }
    target = {name: value for name, value in {**target, **changes}.items() if value is not None}
    return {
        "id": "4d1c3b0a-7a52-4d4c-8e7f-0f0b6d5b7f11",
        "timestamp": "2026-03-01T08:00:00.125456789Z",
        "action": action,
        "target": target,
        "request": {
            "id": "b7",
            "addr": "127.0.0.1:40312",
            "host": "127.0.0.1:5001",
            "method": "PUT",
            "useragent": "skopeo/1.9.3",
        },
        "actor": {"name": "ci"},
        "source": {"addr": "node:5001", "instanceID": "8a64"},
    }


def one(*args: object, **changes: object) -> Event:
    found = normalised(sent(*args, **changes))
    assert not found.unreadable
    assert not found.ignored
    (event,) = found.events
    return event


def why(*events: object) -> str:
    found = normalised(*events)
    assert not found.events
    (dead_letter,) = found.unreadable
    return dead_letter.reason


def test_a_manifest_pushed_by_tag():
    event = one()
    assert (event.action, event.place, event.region) == (Action.MANIFEST_PUSH, "game-cn", "beijing")
    assert (event.repository, event.tag, event.digest) == ("game/server", "1.4.2-global", DIGEST)
    assert (event.media_type, event.size, event.actor) == (OCI, 708, "ci")
    assert (event.origin, event.hops, event.rules_rev, event.time) == ("game-cn", 0, 41, NOW)
    assert event.occurred_at == datetime(2026, 3, 1, 8, 0, 0, 125_456, tzinfo=UTC)
    assert event.key == "game-cn/game/server"
    assert decode(encode(event), Event) == event


@pytest.mark.parametrize(
    ("changes", "action"),
    [
        ({"tag": None}, Action.MANIFEST_PUSH),
        ({"tag": ""}, Action.MANIFEST_PUSH),
        ({"tag": None, "url": f"https://r/v2/a/blobs/{DIGEST}?ns=x"}, Action.BLOB_PUSH),
        ({"tag": None, "url": f"https://r/v2/a/manifests/blobs/{DIGEST}"}, Action.BLOB_PUSH),
        ({"tag": None, "url": f"https://r/v2/a/blobs/manifests/{DIGEST}"}, Action.MANIFEST_PUSH),
        ({"tag": None, "url": None}, Action.MANIFEST_PUSH),
        ({"tag": None, "url": "http://[::bad", "mediaType": "application/octet-stream"}, Action.BLOB_PUSH),
        (
            {
                "tag": None,
                "url": None,
                "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
            },
            Action.MANIFEST_PUSH,
        ),
        (
            {"tag": None, "url": None, "mediaType": "application/vnd.oci.image.index.v1+json"},
            Action.MANIFEST_PUSH,
        ),
        (
            {"tag": None, "url": None, "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"},
            Action.BLOB_PUSH,
        ),
        ({"tag": None, "url": 7, "mediaType": ["?"]}, Action.BLOB_PUSH),
    ],
)
def test_what_was_pushed_is_decided_by_url_and_then_by_media_type(changes, action):
    assert one("push", **changes).action is action


def test_a_mount_names_where_the_blob_came_from():
    blob = {"tag": None, "mediaType": "application/octet-stream", "fromRepository": "base/runtime"}
    event = one("mount", url=f"http://r/v2/game/server/blobs/{DIGEST}", **blob)
    assert (event.action, event.from_repository) == (Action.BLOB_MOUNT, "base/runtime")


@pytest.mark.parametrize(
    ("kept", "action"),
    [
        ({"digest": DIGEST}, Action.MANIFEST_DELETE),
        ({"tag": "1.4.1"}, Action.TAG_DELETE),
        ({}, Action.REPOSITORY_DELETE),
        ({"digest": "", "tag": "", "size": 0}, Action.REPOSITORY_DELETE),
    ],
)
def test_what_was_deleted_is_decided_by_what_is_named(kept, action):
    raw = {**sent("delete"), "target": {"repository": "game/server", **kept}}
    (event,) = normalised(raw).events
    assert event.action is action


@pytest.mark.parametrize("action", ["pull", "prune", ""])
def test_pulls_and_unknown_actions_are_counted_and_nothing_more(action):
    assert normalised(sent(action), sent()).ignored == 1
    assert len(normalised(sent(action), sent()).events) == 1


def test_one_bad_event_does_not_affect_the_others():
    bad = sent(repository="Game/Server")
    found = normalised(sent(), bad, sent(tag="2"), sent("pull"))
    assert [event.tag for event in found.events] == ["1.4.2-global", "2"]
    assert found.ignored == 1
    (dead_letter,) = found.unreadable
    assert orjson.loads(dead_letter.raw) == bad
    assert "'Game/Server' is not a repository name" in dead_letter.reason


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (7, "not an object"),
        ({}, "`action` is missing"),
        ({"action": ["push"]}, "`action` is missing or not a string"),
        ({"action": "push"}, "`target` is not an object"),
        ({"action": "push", "target": {"repository": 5}}, "`repository`"),
        (sent(repository="../../etc"), "not a repository name"),
        (sent(tag="a b"), "not a tag"),
        (sent(tag=5), "`tag` is missing or not a string"),
        (sent(digest=None), "without a digest"),
        (sent(digest="md5:" + "0" * 32), "not a digest"),
        (sent("delete", digest=["sha256"]), "`digest`"),
        (sent("mount", tag=None, fromRepository="UP"), "not a repository name"),
    ],
)
def test_the_reason_of_an_unreadable_event_names_the_fault(event, reason):
    assert reason in why(event)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"\x00\xff", b"[]", b"{}", b"null"),
        *(b'{"events": null}', b'{"events": {}}', b'{"events": "x"}', b'{"events": ["\\ud800"]}'),
        b'{"events": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"events": [1' + b"0" * 5000 + b"]}",
    ],
)
def test_a_body_that_is_no_envelope_is_kept_whole(body):
    found = NORMALISE["distribution"](body, CONTEXT)
    assert not found.events
    (dead_letter,) = found.unreadable
    assert dead_letter.raw == body
    assert dead_letter.reason


def test_an_event_nested_deeper_than_can_be_written_keeps_the_whole_envelope():
    body = b'{"events": [{"action": 5, "x": ' + b"[" * 500 + b"]" * 500 + b"}]}"
    (dead_letter,) = NORMALISE["distribution"](body, CONTEXT).unreadable
    assert dead_letter.raw == body


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        ("2026-03-01T16:00:00.1+08:00", datetime(2026, 3, 1, 8, 0, 0, 100_000, tzinfo=UTC)),
        ("2026-03-01T08:00:59Z", datetime(2026, 3, 1, 8, 0, 59, tzinfo=UTC)),
        ("2026-02-20T08:00:00Z", datetime(2026, 2, 20, 8, tzinfo=UTC)),  # it waited in the registry's queue
        ("2026-03-01T08:01:01Z", NOW),
        ("9999-12-31T23:59:59-23:59", NOW),
        ("0001-01-01T00:00:00Z", NOW),
        ("2026-03-01T08:00:00", NOW),
        ("20260301", NOW),
        ("yesterday", NOW),
        (1772352000, NOW),
        (None, NOW),
    ],
)
def test_the_registrys_clock_is_trusted_within_reason(timestamp, expected):
    (event,) = normalised({**sent(), "timestamp": timestamp}).events
    assert event.occurred_at == expected


def test_the_id_is_the_same_at_each_delivery():
    later = Context(GAME_CN, 57, NOW + timedelta(seconds=9))
    (again,) = normalised(sent(), context=later).events
    assert again.id == one().id
    others = [one(tag="2"), one(digest="sha256:" + "0" * 64), one(repository="game/other")]
    others += normalised({**sent(), "id": "another"}).events
    assert len({event.id for event in [*others, again]}) == 5


def test_an_event_without_an_id_is_deduplicated_by_its_time():
    def of(timestamp: object, context: Context = CONTEXT) -> str:
        (event,) = normalised({**sent(), "id": 0, "timestamp": timestamp}, context=context).events
        return event.id

    later = Context(GAME_CN, 41, NOW + timedelta(seconds=9))
    assert of("2026-03-01T08:00:00Z") == of("2026-03-01T08:00:00Z", later)
    assert of("2026-03-01T08:00:00Z") != of("2026-03-01T08:00:01Z")
    assert of(None) != of(None, later)


@pytest.mark.parametrize("size", [-1, True, 1.5, "9", 2**64 - 1, None])
def test_an_invalid_size_is_replaced_by_the_length(size):
    assert one(size=size).size == 708
    assert one(size=size, length=None).size is None


def test_an_actor_is_cleaned_and_an_invalid_one_left_out():
    assert normalised({**sent(), "actor": {"name": "ci\x1b[31m\n" + "x" * 999}}).events[0].actor[:4] == "ci ["
    for invalid in (None, "ci", {"name": 5}, {"name": ""}, {}):
        assert normalised({**sent(), "actor": invalid}).events[0].actor is None


def test_every_kind_that_can_be_declared_has_a_normaliser():
    kinds = KINDS["instance"].model_json_schema()["properties"]["kind"]
    assert set(NORMALISE) == set(kinds.get("enum", [kinds.get("const")]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS = [*sent()["target"], "fromRepository"]
HOSTILE = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON,
        "timestamp": JSON | st.datetimes().map(datetime.isoformat) | st.text("0123456789-:TZ+."),
        "action": JSON | st.sampled_from(["push", "pull", "mount", "delete"]),
        "actor": JSON,
        "target": JSON
        | st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON))
        | st.builds(
            lambda changes: {**sent()["target"], **changes},
            st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3),
        ),
    },
)


def accounted(body: bytes, events: int) -> None:
    """Every event is published, unreadable or ignored; what is published can be read again."""
    found = NORMALISE["distribution"](body, CONTEXT)
    assert len(found.events) + len(found.unreadable) + found.ignored == events
    for event in found.events:
        assert decode(encode(event), Event) == event
    for dead_letter in found.unreadable:
        assert dead_letter.reason.isprintable()
        assert len(dead_letter.reason) <= 500


@settings(max_examples=100, deadline=None)
@given(st.lists(HOSTILE | JSON, max_size=4))
def test_fuzz_events(events):
    accounted(orjson.dumps({"events": events}), len(events))


@settings(max_examples=100, deadline=None)
@given(st.binary() | JSON.map(orjson.dumps))
def test_fuzz_bodies(body):
    found = NORMALISE["distribution"](body, CONTEXT)
    assert not found.events


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"events":[' + b"{}," * 2_796_000 + b"{}]}", "JSON of 5592003 parts"),
        (orjson.dumps({"events": [sent(tag=f"v{number}") for number in range(5_001)]}), "5001 events"),
    ],
    ids=["8 MiB of empty objects", "events"],
)
def test_a_notification_of_too_many_parts_is_one_dead_letter_and_takes_little_memory(body, reason):
    tracemalloc.start()
    try:
        found = NORMALISE["distribution"](body, CONTEXT)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.events == ()
    (dead_letter,) = found.unreadable
    assert dead_letter.reason.startswith(reason)
    assert peak < 64 * 1024 * 1024


@pytest.mark.parametrize(
    ("source", "process"),
    [
        ({"addr": "node:5001", "instanceID": "8a64"}, "8a64"),
        ({"addr": "node:5001"}, None),
        ({"instanceID": 7}, None),
        ({"instanceID": "x" * 129}, None),
        ({"instanceID": "a\nb"}, None),
        ("node", None),
    ],
)
def test_the_process_of_the_registry_is_read_where_it_says_so(source, process):
    assert normalised({**sent(), "source": source}).process == process
