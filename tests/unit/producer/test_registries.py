"""Notifications of each kind of registry as events; and nothing that it may send makes its normaliser raise."""

import re
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.normalise import NORMALISE
from producer.normalise.outcome import Context, Normalised
from producer.receive import descriptive_headers
from schemas.codec import decode, encode
from schemas.events import Action, Event
from schemas.topology import Instance
from tests.support.recorded_requests import Request, request, requests

NOW = datetime(2026, 3, 1, 8, 0, 30, tzinfo=UTC)
AT = datetime(2026, 3, 1, 8, tzinfo=UTC)
DIGEST = "sha256:6cbb4f50e0b229879b93d73201d1ed2aaa20a2a0266ab0debc9e194eeb4953a0"
KINDS = [kind for kind in NORMALISE if kind != "distribution"]
HOSTS = {
    "ecr": "https://123456789012.dkr.ecr.us-west-2.amazonaws.com",
    "google": "https://europe-docker.pkg.dev",
}
PUSH, TAG_DELETE, DELETE = Action.MANIFEST_PUSH, Action.TAG_DELETE, Action.MANIFEST_DELETE
SERVER = "game/server"


def instance(kind: str, url: str | None = None) -> Instance:
    where = url or HOSTS.get(kind, "https://registry.example.com")
    return Instance(name="game-cn", account="game", region="beijing", url=where, kind=kind)


def normalised(sent: Request, *, at: datetime = NOW, url: str | None = None) -> Normalised:
    context = Context(instance(sent.kind, url), 41, at, descriptive_headers(sent.headers))
    return NORMALISE[sent.kind](sent.body, context)


def read(kind: str, body: object, **headers: str) -> Normalised:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return normalised(Request(kind, "made", named, raw))


def body_of(kind: str, what: str) -> dict[str, object]:
    return orjson.loads(request(kind, what).body)


def short(event: Event) -> tuple[Action, str, str | None, bool]:
    return event.action, event.repository, event.tag, event.digest is not None


# What each recorded request contains: its events, or how many it ignores, or the reason of its dead letter.
EXPECTED: dict[str, list[tuple[Action, str, str | None, bool]] | int | str] = {
    "acr/chart-push": 1,
    "acr/chart-push-oci": [(PUSH, "charts/wordpress", "5.4.0", True)],
    "acr/delete": [(DELETE, SERVER, None, True)],
    "acr/delete-repository": [(Action.REPOSITORY_DELETE, SERVER, None, False)],
    "acr/eventgrid": [(PUSH, SERVER, "1.4.2", True), (DELETE, SERVER, None, True)],
    "acr/eventgrid-cloudevents": [(PUSH, SERVER, "1.4.2", True)],
    "acr/eventgrid-handshake": "handshake of Event Grid",
    "acr/ping": 1,
    "acr/push": [(PUSH, SERVER, "1.4.2", True)],
    "acr/push-untagged": [(PUSH, SERVER, None, True)],
    "acr/quarantine": 1,
    "ecr/delete": [(TAG_DELETE, SERVER, "1.4.2", False)],
    "ecr/delete-untagged": [(DELETE, SERVER, None, True)],
    "ecr/pull-through": 1,
    "ecr/push": [(PUSH, SERVER, "1.4.2", True)],
    "ecr/push-failed": 1,
    "ecr/push-untagged": [(PUSH, SERVER, None, True)],
    "ecr/replicated": [(PUSH, SERVER, "1.4.2", True)],
    "ecr/restored": 1,
    "ecr/scan": 1,
    "gitlab/pull": 1,
    "gitlab/push": [(PUSH, SERVER, "1.4.2", True)],
    "gitlab/tag-delete": [(TAG_DELETE, SERVER, "1.4.2", False)],
    "google/another-host": 1,
    "google/delete-digest": [(DELETE, "games/docker/game/server", None, True)],
    "google/delete-tag": [(TAG_DELETE, "games/docker/game/server", "1.4.2", False)],
    "google/insert-bare-tag": [(PUSH, "games/docker/game/server", "1.4.2", True)],
    "google/insert-digest": [(PUSH, "games/docker/game/server", None, True)],
    "google/insert-tag": [(PUSH, "games/docker/game/server", "1.4.2", True)],
    "google/unwrapped": [(PUSH, "games/docker/game/server", "1.4.2", True)],
    "harbor/cloudevents-delete": [(DELETE, SERVER, None, True), (TAG_DELETE, SERVER, "1.4.2", False)],
    "harbor/cloudevents-push": [(PUSH, SERVER, "1.4.2", True)],
    "harbor/cloudevents-push-untagged": [(PUSH, SERVER, None, True)],
    "harbor/cloudevents-tag": [(PUSH, SERVER, "latest", True)],
    "harbor/delete": [(DELETE, SERVER, None, True), (TAG_DELETE, SERVER, "1.4.2", False)],
    "harbor/pull": 1,
    "harbor/push": [(PUSH, SERVER, "1.4.2", True)],
    "harbor/push-untagged": [(PUSH, SERVER, None, True)],
    "harbor/quota": 1,
    "harbor/replication": 1,
    "quay/build-queued": 1,
    "quay/mirror-success": 1,
    "quay/repo-push": [(PUSH, SERVER, "1.4.2", False), (PUSH, SERVER, "latest", False)],
    "quay/repo-push-old": [(PUSH, SERVER, "1.4.2", False)],
    "quay/vulnerability": 1,
    "tcr/delete-image": [(DELETE, SERVER, None, True), (TAG_DELETE, SERVER, "1.4.2", False)],
    "tcr/pull-image": 1,
    "tcr/push-image": [(PUSH, SERVER, "1.4.2", True)],
    "tcr/upload-chart": 1,
    "tcr/upload-chart-oci": [(PUSH, SERVER, "0.6.0", True)],
    "zot/image-deleted-digest": [(DELETE, SERVER, None, True)],
    "zot/image-deleted-tag": [(TAG_DELETE, SERVER, "1.4.2", False)],
    "zot/image-lint-failed": 1,
    "zot/image-scanned": 1,
    "zot/image-updated": [(PUSH, SERVER, "1.4.2", True)],
    "zot/image-updated-by-digest": [(PUSH, SERVER, None, True)],
    "zot/image-updated-by-sync": [(PUSH, SERVER, "1.4.2", True)],
    "zot/repository-created": 1,
    "zot/structured-image-updated": [(PUSH, SERVER, "1.4.2", True)],
}


def test_every_recorded_request_is_expected_here():
    assert {str(sent) for sent in requests()} == set(EXPECTED)
    assert {sent.kind for sent in requests()} == set(KINDS)


@pytest.mark.parametrize("sent", requests(), ids=str)
def test_what_a_registry_sends_is_read(sent: Request):
    found, expected = normalised(sent), EXPECTED[str(sent)]
    if isinstance(expected, str):
        (dead_letter,) = found.unreadable
        assert expected in dead_letter.reason
        assert not found.events
        return
    assert not found.unreadable
    assert [short(event) for event in found.events] == (expected if isinstance(expected, list) else [])
    if isinstance(expected, int):
        assert found.ignored == expected
    for event in found.events:
        assert (event.place, event.region, event.origin) == ("game-cn", "beijing", "game-cn")
        assert (event.rules_rev, event.time, event.hops) == (41, NOW, 0)
        assert event.digest in (None, DIGEST) or "chart" in sent.what
        assert decode(encode(event), Event) == event


@pytest.mark.parametrize("sent", requests(), ids=str)
def test_the_registrys_time_is_the_events(sent: Request):
    for event in normalised(sent).events:
        assert abs(event.occurred_at - (NOW if sent.kind == "quay" else AT)) < timedelta(seconds=1)


@pytest.mark.parametrize("sent", requests(), ids=str)
def test_a_delivery_that_comes_again_has_the_same_ids(sent: Request):
    """Except for Quay, which sends no id and no time; its second delivery finds what the first one copied."""
    ids = [event.id for event in normalised(sent).events]
    again = [event.id for event in normalised(sent, at=NOW + timedelta(seconds=9)).events]
    assert (ids == again) == (sent.kind != "quay" or not ids)
    assert len(set(ids)) == len(ids)


def test_the_actor_is_known_where_the_registry_names_it():
    assert normalised(request("harbor", "push")).events[0].actor == "robot$game+ci"
    assert normalised(request("harbor", "cloudevents-push")).events[0].actor == "robot$game+ci"
    assert normalised(request("zot", "image-updated")).events[0].actor == "ci"
    assert normalised(request("zot", "image-updated-by-sync")).events[0].actor is None
    assert normalised(request("tcr", "push-image")).events[0].actor == "100012345678"


def test_harbors_two_formats_contain_the_same():
    old, new = (normalised(request("harbor", what)).events[0] for what in ("push", "cloudevents-push"))
    assert short(old) == short(new)
    assert old.digest == new.digest


def test_harbors_own_format_has_no_id_so_the_second_is_part_of_it():
    later = {**body_of("harbor", "push"), "occur_at": 1772352001}
    assert read("harbor", later).events[0].id != normalised(request("harbor", "push")).events[0].id
    nameless = {**body_of("harbor", "push"), "occur_at": "soon"}
    assert read("harbor", nameless).events[0].occurred_at == NOW


def test_zots_type_may_come_in_any_case_and_is_needed():
    body = body_of("zot", "image-updated")
    assert read("zot", body, CE_TYPE="zotregistry.image.updated", ce_id="1").events
    (dead_letter,) = read("zot", body, Content_Type="application/json").unreadable
    assert "Ce-Type" in dead_letter.reason
    assert read("zot", body, Ce_Type="com.example.pushed").unreadable
    assert read("zot", body, Ce_Type="com.example.registry.image.updated").events  # its `typePrefix` was set
    assert read("zot", body, Ce_Type="zotregistry.image.signed").ignored == 1


def test_of_the_headers_only_those_that_describe_are_kept():
    sent = {"Ce-Type": "a", "X-Goog-Pubsub-Message-Id": "1", "Authorization": "Bearer hunter2", "Cookie": "x"}
    assert descriptive_headers(sent) == {"ce-type": "a", "x-goog-pubsub-message-id": "1"}


def test_one_bad_tag_of_quay_does_not_affect_the_others():
    body = {**body_of("quay", "repo-push"), "updated_tags": ["1", "not a tag", 7, "2"]}
    found = read("quay", body)
    assert [event.tag for event in found.events] == ["1", "2"]
    assert [orjson.loads(dead_letter.raw) for dead_letter in found.unreadable] == [body, body]


def test_one_bad_event_of_the_grid_does_not_affect_the_others():
    events = orjson.loads(request("acr", "eventgrid").body)
    found = read("acr", [7, *events, {**events[0], "data": None}])
    assert (len(found.events), len(found.unreadable), found.ignored) == (2, 2, 1)
    assert read("acr", [{"eventType": "Microsoft.Storage.BlobCreated", "data": {}}]).ignored == 1


def test_a_body_never_decides_which_registry_sent_it():
    """An instance behind a host name of its own accepts any event sent to its path, whatever the body names."""
    for kind, what in (
        ("ecr", "push"),
        ("google", "insert-tag"),
        ("google", "another-host"),
        ("acr", "push"),
    ):
        (event,) = normalised(request(kind, what), url="https://cache.example.com").events
        assert event.place == "game-cn"


@pytest.mark.parametrize(
    "url",
    [
        "https://123456789012.dkr.ecr.eu-central-1.amazonaws.com",
        "https://999999999999.dkr.ecr.us-west-2.amazonaws.com",
        "https://999999999999.dkr-ecr.us-west-2.on.aws",
    ],
)
def test_a_rule_of_eventbridge_that_is_too_wide_is_ignored(url: str):
    assert normalised(request("ecr", "push"), url=url) == Normalised(ignored=1)


@pytest.mark.parametrize(
    "host",
    [
        "123456789012.dkr.ecr-fips.us-west-2.amazonaws.com",
        "123456789012.dkr-ecr.us-west-2.on.aws",
        "123456789012.dkr.ecr.us-west-2.amazonaws.com.cn",
    ],
)
def test_ecrs_other_hosts_are_its_own(host: str):
    assert normalised(request("ecr", "push"), url=f"https://{host}").events


def message(**data: object) -> dict[str, object]:
    return {"message": {"data": b64encode(orjson.dumps(data)).decode(), "messageId": "7"}}


REGISTRY = "europe-docker.pkg.dev/games/docker"


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        ("harbor", {"type": "PUSH_ARTIFACT"}, "the event's data is not an object"),
        ("harbor", {"type": "PUSH_ARTIFACT", "event_data": {}}, "`repository` is not an object"),
        ("harbor", {"type": "PUSH_ARTIFACT", "event_data": {"repository": {}}}, "`repo_full_name`"),
        (
            "harbor",
            {"type": "PUSH_ARTIFACT", "event_data": {"repository": {"repo_full_name": "a"}}},
            "`resources`",
        ),
        (
            "harbor",
            {
                "type": "PUSH_ARTIFACT",
                "event_data": {"repository": {"repo_full_name": "a"}, "resources": [{}]},
            },
            "neither `tag` nor `digest`",
        ),
        ("harbor", {"events": []}, "`type`"),
        ("tcr", {"type": 7}, "`type`"),
        ("quay", {"repository": "a/b"}, "`updated_tags`"),
        ("quay", {"updated_tags": ["1"]}, "`repository`"),
        ("quay", {"repository": "../b", "updated_tags": ["1"]}, "not a repository name"),
        ("acr", {"action": "push"}, "`target` is not an object"),
        ("acr", {"action": "chart_push", "target": []}, "`target` is not an object"),
        ("acr", {"eventType": "Microsoft.ContainerRegistry.ImagePushed"}, "`data` is not an object"),
        ("ecr", {"detail-type": "ECR Image Action"}, "`source` is not aws.ecr"),
        ("ecr", {"source": "aws.ecr"}, "`detail`"),
        (
            "ecr",
            {
                "source": "aws.ecr",
                "account": "123456789012",
                "region": "us-west-2",
                "detail-type": "ECR Image Action",
                "detail": {"action-type": "PUSH", "result": "SUCCESS", "repository-name": "a"},
            },
            "neither `image-tag`",
        ),
        ("google", {"message": {}}, "`data` is missing"),
        ("google", {"message": {"data": "%%%"}}, "base64"),
        ("google", {"message": {"data": "bm90IEpTT04="}}, "not JSON"),
        ("google", message(), "`action`"),
        ("google", message(action="INSERT"), "neither `digest` nor `tag`"),
        ("google", message(action="INSERT", tag="1.0"), "not a repository name"),
        ("google", message(action="INSERT", digest=f"{REGISTRY}/a@sha256:00"), "not a digest"),
        (
            "google",
            message(action="INSERT", digest=f"{REGISTRY}/a@{DIGEST}", tag=f"{REGISTRY}/b:1"),
            "different repositories",
        ),
        ("gitlab", {"type": "PUSH_ARTIFACT"}, "no list `events`"),
    ],
)
def test_the_reason_of_an_unreadable_notification_names_the_fault(kind: str, body: object, reason: str):
    found = read(kind, body)
    assert not found.events
    (dead_letter,) = found.unreadable
    assert reason in dead_letter.reason


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "body", [b"", b"\x00\xff", b"7", b"null", b'"x"', b"[" * 5000 + b"]" * 5000, b'{"a": "\\ud800"}']
)
def test_a_body_that_is_no_notification_is_kept_whole(kind: str, body: bytes):
    (dead_letter,) = read(kind, body).unreadable
    assert dead_letter.raw == body
    assert dead_letter.reason


def test_every_kind_is_documented():
    page = (Path(__file__).parent.parent.parent.parent / "docs" / "registries.md").read_text()
    for kind in NORMALISE:
        assert re.search(rf"^## .*`kind: {kind}`", page, re.MULTILINE), kind


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
SEEN = requests()
HEADER_TEXT = st.text(st.characters(codec="utf-8")) | st.sampled_from(["\udcff", "zotregistry.image.updated"])


@st.composite
def hostile(draw: st.DrawFn) -> Request:
    """A real request of which some part, at any depth, is replaced or removed."""
    sent = draw(st.sampled_from(SEEN))
    body = orjson.loads(sent.body)
    if isinstance(body, dict) and isinstance(body.get("message"), dict):
        return _hostile_message(draw, sent, body)
    for _ in range(draw(st.integers(1, 3))):
        _spoil(draw, body)
    headers = {**sent.headers, **draw(st.dictionaries(st.sampled_from(["Ce-Type", "Ce-Id"]), HEADER_TEXT))}
    return Request(sent.kind, sent.what, headers, orjson.dumps(body))


def _hostile_message(draw: st.DrawFn, sent: Request, body: dict[str, object]) -> Request:
    data = {**both(), **draw(st.dictionaries(st.sampled_from(["action", "tag", "digest"]), JSON))}
    inner = b64encode(orjson.dumps(data)).decode()
    changed = {**body, "message": {**body["message"], "data": draw(st.just(inner) | JSON)}}  # type: ignore[dict-item]
    return Request(sent.kind, sent.what, sent.headers, orjson.dumps(changed))


def both() -> dict[str, object]:
    return {"action": "INSERT", "digest": f"{REGISTRY}/a@{DIGEST}", "tag": f"{REGISTRY}/a:1"}


def _spoil(draw: st.DrawFn, body: object) -> None:
    at = body
    while isinstance(at, dict | list) and at:
        where = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        below = at[where]
        if isinstance(below, dict | list) and below and draw(st.booleans()):
            at = below
            continue
        if draw(st.booleans()):
            at[where] = draw(JSON)
        else:
            del at[where]
        return


def accounted(found: Normalised) -> None:
    """Everything is accounted for, and published events can be read again."""
    for event in found.events:
        assert decode(encode(event), Event) == event
        assert event.place == "game-cn"
        assert event.tag is not None or event.digest is not None or event.action is Action.REPOSITORY_DELETE
    for dead_letter in found.unreadable:
        assert dead_letter.reason.isprintable()
        assert 0 < len(dead_letter.reason) <= 500
    assert found.ignored >= 0


@settings(max_examples=200, deadline=None)
@given(hostile())
def test_fuzz_requests(sent: Request):
    accounted(normalised(sent))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), st.binary() | JSON.map(orjson.dumps), st.dictionaries(st.text(), HEADER_TEXT))
def test_fuzz_bodies(kind: str, body: bytes, headers: dict[str, str]):
    found = normalised(Request(kind, "made", headers, body))
    accounted(found)
    if kind not in ("acr", "gitlab"):  # these may hold a list, and an empty one contains nothing
        assert found.events or found.unreadable or found.ignored
