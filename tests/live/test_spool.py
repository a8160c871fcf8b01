"""Kafka is away while registries send notifications: each answered 202 comes, in order, whatever the intake suffers."""

import asyncio
import json
import os
import signal
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.support import parts
from tests.support.kafka_broker import Broker
from tests.support.parts import Process, free_port, run_regmesh, until

pytestmark = [pytest.mark.real("kafka")]

TOPIC = "mesh.home.events"
REPOSITORIES = [f"team/app{number}" for number in range(4)]


class Sender:
    """Posts notifications as distribution does, one after another, and remembers those that were accepted."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/v1/notifications/game"
        self.accepted: dict[str, list[str]] = {name: [] for name in REPOSITORIES}  # digests
        self.number = 0

    def post(self, count: int) -> None:
        for _ in range(count):
            repository, digest = REPOSITORIES[self.number % 4], f"sha256:{self.number:064x}"
            assert self.send(repository, digest) == 202
            self.accepted[repository].append(digest)
            self.number += 1

    def send(self, repository: str, digest: str) -> int:
        event = {
            "id": digest[-36:], "action": "push", "timestamp": "2026-11-27T08:00:00Z",
            "target": {
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 100,
                "repository": repository, "tag": "latest",
            },
        }  # fmt: skip
        request = Request(self.url, json.dumps({"events": [event]}).encode())
        try:
            with urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code


def on_kafka(broker: Broker) -> dict[str, list[str]]:
    """Returns the digests that Kafka has by repository, in order, without the repeats of one event's id."""

    async def read() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {name: [] for name in REPOSITORIES}
        seen = set[str]()
        consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap, enable_auto_commit=False)
        await consumer.start()
        try:
            partitions = [TopicPartition(TOPIC, number) for number in range(12)]
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            ends = await consumer.end_offsets(partitions)
            while any([await consumer.position(one) < ends[one] for one in partitions]):
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    for record in records:
                        event = json.loads(record.value)
                        if event["id"] not in seen:
                            found[event["repository"]].append(event["digest"])
                        seen.add(event["id"])
        finally:
            await consumer.stop()
        return found

    return asyncio.run(read())


def mesh_file(folder: Path) -> Path:
    file = folder / "mesh.yaml"
    document = {
        "regions": [{"name": "home", "jurisdiction": "eu"}],
        "instances": [{"name": "game", "account": "game", "region": "home", "url": "http://127.0.0.1:9"}],
    }
    file.write_text(yaml.safe_dump(document))
    return file


def ready(url: str, process: Process) -> dict[str, object]:
    until("it is ready", lambda: parts.get(f"{url}/readyz"), within=60, needs=[process])
    return dict(parts.get(f"{url}/readyz"))


def sent(url: str, process: Process) -> None:
    """Waits until the spool is empty."""
    until("all is sent", lambda: ready(url, process)["notes"] == [], within=60, needs=[process])


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_what_a_producer_answered_202_while_kafka_was_away_comes_in_order(
    tmp_path: Path, broker: Broker, ending: signal.Signals
) -> None:
    url, api = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    file, data = mesh_file(tmp_path), tmp_path / "producer"

    def run(name: str, listen: str, folder: Path) -> Process:
        listen = listen.removeprefix("http://")
        command = (name, "--log", broker.url, "--listen", listen, "--data", str(folder))
        return parts.regmesh(tmp_path / f"{name}.log", *command)

    assert run_regmesh("topics", "create", "--log", broker.url, "-f", str(file)).returncode == 0
    control = run("control", api, tmp_path / "control")
    producer = run("producer", url, data)
    try:
        ready(api, control)
        assert run_regmesh("apply", "-f", str(file), "--server", api).returncode == 0
        ready(url, producer)
        sender = Sender(url)
        sender.post(8)
        until("the instances are saved", (data / "instances.json").exists, needs=[producer])
        broker.kill()
        sender.post(20)
        assert "notifications wait in" in str(ready(url, producer)["notes"])

        os.kill(producer.pid, ending)
        until("it has ended", lambda it=producer: not it.is_running(), within=40)
        producer = run("producer", url, data)
        ready(url, producer)  # without Kafka
        sender.post(20)
        broker.start()
        sender.post(20)  # while the spool is sent
        sent(url, producer)
        sender.post(4)
        assert on_kafka(broker) == sender.accepted
        assert (data / "spool.db").stat().st_size < 1 << 20
    finally:
        producer.end()
        control.end()


def test_up_starts_and_stops_while_kafka_is_away(tmp_path: Path, broker: Broker) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    file, data = mesh_file(tmp_path), tmp_path / "up"
    command = ("up", "-f", str(file), "--log", broker.url, "--listen", url.removeprefix("http://"))
    command += ("--data", str(data))
    up = parts.regmesh(tmp_path / "up.log", *command)
    try:
        ready(url, up)
        sender = Sender(url)
        until("the instances are saved", (data / "instances.json").exists, needs=[up])
        broker.kill()
        assert up.stop() == 0
        up = parts.regmesh(tmp_path / "up.log", *command)
        ready(url, up)
        sender.post(12)
        assert up.stop() == 0
        up = parts.regmesh(tmp_path / "up.log", *command)
        ready(url, up)
        sender.post(4)
        broker.start()
        until(
            "up works",
            lambda it=up: "regmesh is up at" in it.output().rpartition("Kafka")[2],
            within=60,
            needs=[up],
        )
        sent(url, up)
        assert on_kafka(broker) == sender.accepted
    finally:
        up.end()


def test_a_wrong_log_is_an_error_at_the_first_start(tmp_path: Path) -> None:
    log, data = f"kafka://127.0.0.1:{free_port()}", tmp_path / "producer"
    done = run_regmesh("producer", "--log", log, "--data", str(data), "--listen", f"127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "Kafka" in done.stderr


def test_a_second_producer_in_the_same_folder_is_refused(tmp_path: Path, broker: Broker) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    command = ("producer", "--log", broker.url, "--data", str(tmp_path / "data"), "--listen")
    first = parts.regmesh(tmp_path / "first.log", *command, url.removeprefix("http://"))
    try:
        ready(url, first)
        done = run_regmesh(*command, f"127.0.0.1:{free_port()}")
        assert done.returncode == 1
        assert "give each process its own --data" in done.stderr
    finally:
        first.end()
