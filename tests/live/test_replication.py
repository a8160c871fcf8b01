"""Instance replication on real parts: docker-registries, Apache Kafka, one process for each region's agent."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import images, kafka_broker, parts
from tests.support.fleet import Fleet, fleet
from tests.support.parts import until
from tests.support.uplink import Uplink

pytestmark = [pytest.mark.real("docker-registry", "skopeo", "kafka"), pytest.mark.alone]

MIB = 1024 * 1024
RATE = 8 * MIB  # bytes a second that the source's uplink lets out
REPLICAS = tuple(f"region{number}" for number in range(1, 9))


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[kafka_broker.Broker]:
    broker = kafka_broker.start(tmp_path / "kafka")
    yield broker
    broker.stop()


@pytest.fixture
def mesh(tmp_path: Path, kafka: kafka_broker.Broker) -> Iterator[Fleet]:
    with fleet(tmp_path, kafka.url) as made:
        yield made


def test_eight_replicas_are_filled_by_one_reading_of_the_source(mesh: Fleet, capsys: Any) -> None:
    source = mesh.registry("game")
    for region in REPLICAS:
        mesh.registry(f"game@{region}")
    uplink = Uplink(source.port, RATE)
    try:
        mesh.start(mesh.replicated("game", uplink.url, REPLICAS), REPLICAS)
        mesh.know_each_other(REPLICAS)
        image = images.image(layers=[os.urandom(16 * MIB) for _ in range(3)])
        layout = images.write_layout(mesh.folder / "pushed", {"v1": image})
        before = uplink.bytes_out
        parts.push(layout, "v1", source, "game/app:v1")
        pushed = time.monotonic()

        def everywhere() -> bool:
            there = {mesh.registries[f"game@{region}"].digest("game/app", "v1") for region in REPLICAS}
            return there == {image.digest}

        until("the image is at all replicas", everywhere, within=90)
        size = sum(blob.size for blob in image.blob_descriptors)
        took = time.monotonic() - pushed
        with capsys.disabled():
            print(
                f"\n8 replicas in {took:.1f} s after the push; one transfer takes {size / RATE:.1f} s at this uplink; "
            )
            print(f"the source let out {(uplink.bytes_out - before) / size:.3f} x the image")
        assert {blob.digest: uplink.asked[blob.digest] for blob in image.blob_descriptors} == dict.fromkeys(
            (blob.digest for blob in image.blob_descriptors), 1
        )
        entries = until("all tasks have ended", lambda: _ended(mesh, len(REPLICAS)))
        assert sum(entry["bytes_from"].get("home", 0) for entry in entries) == size
        assert sum(sum(entry["bytes_from"].values()) for entry in entries) == size * len(REPLICAS)
    finally:
        uplink.close()


def _ended(mesh: Fleet, count: int) -> list[dict[str, Any]]:
    found = mesh.logs(status="Succeed", tag="v1")
    return found if len(found) >= count else []
