"""Which webhooks a completion is sent to, and what is sent."""

import orjson
import pytest

from mesh.control.sync_log.entry import entry_of, row_of
from mesh.control.webhooks import message
from schemas.completions import Status
from schemas.webhooks import Webhook
from tests.support.control_site import NOW, completion


def hook(**fields: object) -> Webhook:
    return Webhook.model_validate({"name": "ci", "url": "http://127.0.0.1:9/hook"} | fields)


def test_a_webhook_gets_the_event_types_it_names():
    found = {
        status: message.wants(hook(event_types=["replication.failed", "replication.skipped"]), completion(1, status))
        for status in (Status.SUCCEED, Status.FAILED, Status.SKIPPED, Status.STOPPED)
    }  # fmt: skip
    assert [status for status, wanted in found.items() if wanted] == [Status.FAILED, Status.SKIPPED]


@pytest.mark.parametrize(
    ("account", "wanted"), [(None, True), ("game", True), ("ops", True), ("other", False)]
)
def test_an_account_gets_what_concerns_its_instances(account: str | None, wanted: bool):
    assert message.wants(hook(account=account), completion(destination_account="ops")) is wanted


def test_the_body_is_a_cloud_event_with_the_entry():
    one = completion()
    row = message.delivery_row(hook(), one, entry_of(row_of(one)), NOW)
    body = orjson.loads(row["body"])
    assert body["specversion"] == "1.0"
    assert body["id"] == row["id"]
    assert body["source"] == "/regmesh/regions/frankfurt"
    assert body["type"] == "replication.succeeded"
    assert body["subject"] == "game-eu/game/server:1.0-global"
    assert body["time"] == "2026-03-01T08:00:01Z"
    assert body["data"] == entry_of(row_of(one))


def test_the_id_of_a_delivery_depends_on_webhook_task_and_status_only():
    ids = [
        message.delivery_row(hook(name=name), completion(1, status), {}, NOW)["id"]
        for name in ("ci", "cd")
        for status in (Status.SUCCEED, Status.FAILED, Status.SUCCEED)
    ]
    assert len(set(ids)) == 4
