"""`regmesh doctor` says when Kafka deletes events soon that a region's agents have not read."""

import asyncio
import json
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.support.fleet import fleet
from tests.support.kafka_broker import Broker
from tests.support.parts import run_regmesh, until

pytestmark = [pytest.mark.real("kafka")]

DOCUMENT = {
    "regions": [{"name": name, "jurisdiction": "eu"} for name in ("oslo", "rome")],
    "instances": [
        {"name": "first", "account": "game", "region": "oslo", "url": "http://127.0.0.1:9"},
        {"name": "second", "account": "game", "region": "rome", "url": "http://127.0.0.1:9"},
    ],
    "rules": [
        {
            "name": "all", "source": "first", "destination": "second",
            "filters": [{"type": "name", "value": "game/**"}],
        }
    ],
}  # fmt: skip


def keep_events(broker: Broker, milliseconds: int) -> None:
    async def alter() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
        await admin.start()
        try:
            configs = {"retention.ms": str(milliseconds)}
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, "mesh.oslo.events", configs)])
        finally:
            await admin.close()

    asyncio.run(alter())


def notify(intake: str, number: int) -> None:
    """Notifies of an image that the rule does not want, so that reading it is all that an agent does."""
    event = {
        "id": str(number), "action": "push", "timestamp": "2026-11-27T08:00:00Z",
        "target": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": f"sha256:{number:064x}",
            "size": 100, "repository": "other/app", "tag": f"v{number}",
        },
    }  # fmt: skip
    body = json.dumps({"events": [event]}).encode()
    with urlopen(Request(f"{intake}/v1/notifications/first", body), timeout=30) as answer:
        assert answer.status == 202


def test_events_that_kafka_deletes_soon_are_a_problem(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGMESH_CONTROL_UNREAD_EVENTS_INTERVAL", "1")
    with fleet(tmp_path, broker.url) as site:
        site.start(DOCUMENT, ["rome"])
        notify(site.intake, 0)
        until("the agent has read it", lambda: 'topic="mesh.oslo.events"} 0.0' in lags(site.listens["rome"]))
        site.daemons["agent rome"].kill()
        keep_events(broker, 20_000)
        for number in range(1, 6):
            notify(site.intake, number)

        def message() -> str:
            return run_regmesh("doctor", "--server", site.api).stdout

        until("doctor finds it", lambda: "have not read 5 events of oslo" in message(), within=60)
        assert "Kafka deletes them after" in message()
        site.start_agent("rome")
        until("they are read", lambda: "have not read" not in message(), within=90)


def lags(listen: str) -> str:
    with urlopen(f"http://{listen}/metrics", timeout=10) as answer:
        return str(answer.read().decode())
