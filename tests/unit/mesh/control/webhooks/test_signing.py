"""Whom a completion concerns, what they are told, and when the next try is due."""

from datetime import timedelta

import orjson
import pytest
from standardwebhooks import Webhook as Verifier

from mesh.clock import SystemClock
from mesh.control.sync_log.entry import entry_of, row_of
from mesh.control.webhooks import signing
from mesh.errors import InvalidInput
from schemas.completions import Status
from schemas.webhooks import Webhook
from tests.support.control_site import KEY, NOW, completion


def hook(**told: object) -> Webhook:
    return Webhook.model_validate({"name": "ci", "url": "http://127.0.0.1:9/hook"} | told)


def test_by_event_type():
    told = {
        status: signing.wants(hook(event_types=["replication.failed", "replication.skipped"]), completion(1, status))
        for status in (Status.SUCCEED, Status.FAILED, Status.SKIPPED, Status.STOPPED)
    }  # fmt: skip
    assert [status for status, wanted in told.items() if wanted] == [Status.FAILED, Status.SKIPPED]


@pytest.mark.parametrize(
    ("account", "wanted"), [(None, True), ("game", True), ("ops", True), ("other", False)]
)
def test_an_account_sees_what_touches_its_instances(account: str | None, wanted: bool):
    assert signing.wants(hook(account=account), completion(destination_account="ops")) is wanted


def test_the_body_is_a_cloud_event_with_the_entry():
    one = completion()
    row = signing.delivery(hook(), one, entry_of(row_of(one)), NOW)
    body = orjson.loads(row["body"])
    assert body["specversion"] == "1.0"
    assert body["id"] == row["id"]
    assert body["source"] == "/regmesh/regions/frankfurt"
    assert body["type"] == "replication.succeeded"
    assert body["subject"] == "game-eu/game/server:1.0-global"
    assert body["time"] == "2026-03-01T08:00:01Z"
    assert body["data"] == entry_of(row_of(one))


def test_the_id_of_a_delivery_is_the_same_whoever_makes_it():
    ids = [
        signing.delivery(hook(name=name), completion(1, status), {}, NOW)["id"]
        for name in ("ci", "cd")
        for status in (Status.SUCCEED, Status.FAILED, Status.SUCCEED)
    ]
    assert len(set(ids)) == 4


def test_signed_with_its_key_and_only_then():
    now = SystemClock().now()
    signed = signing.headers("id-1", '{"a":1}', KEY, now)
    assert Verifier(KEY).verify('{"a":1}', signed) == {"a": 1}
    assert "webhook-signature" not in signing.headers("id-1", "{}", None, now)
    assert signed["Content-Type"] == "application/cloudevents+json"


@pytest.mark.parametrize("secret", ["", "whsec_", "hunter2!", "whsec_not base64"])
def test_what_is_no_key_is_refused_without_being_told(secret: str):
    with pytest.raises(InvalidInput) as refused:
        signing.headers("id", "{}", secret, NOW)
    assert "whsec_ and base64" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_waits_double_up_to_an_hour_and_half_of_each_is_chance():
    tries = signing.RetryPolicy()
    longest = [tries.wait_after(n, lambda: 0.999999).total_seconds() for n in range(1, 100)]
    assert [round(seconds) for seconds in longest[:5]] == [1, 2, 4, 8, 16]
    assert max(longest) <= 3600
    assert tries.wait_after(3, lambda: 0.0) == timedelta(seconds=2)
