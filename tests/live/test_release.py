"""What `make demo` shows, on real registries and a real Kafka: nine regions, an agent's process in each that receives.

A release is pushed with one tag for the mainland and one for outside. One test, since the mesh takes long to start.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mesh.node.demo import topology
from tests.support import images, kafka_broker, parts
from tests.support.fleet import Fleet, fleet
from tests.support.images import Image
from tests.support.parts import until

pytestmark = [pytest.mark.real("docker-registry", "skopeo", "kafka"), pytest.mark.alone]

MIB = 1024 * 1024
INSIDE = [place for place in topology.places() if place.startswith(topology.CN)]
OUTSIDE = [place for place in topology.places() if place.startswith(topology.EU)]
APP, SECRET_APP = "game/server", "game/compliance"


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Fleet]:
    broker = kafka_broker.start(tmp_path / "kafka")
    try:
        with fleet(tmp_path, broker.url) as made:
            for place in topology.places():
                made.registry(place)
            made.start(_document(made), [it for it in topology.places().values() if it != "beijing"])
            made.know_each_other(topology.MAINLAND)
            made.know_each_other(topology.OUTSIDE)
            yield made
    finally:
        broker.stop()


def _document(mesh: Fleet) -> dict[str, Any]:
    """The demo's, with the fleet's relay secret and without slow lines."""
    document = topology.document({place: registry.url for place, registry in mesh.registries.items()})
    for region in document["regions"]:
        region["relay"] = {"secret": "RELAY"}
        for link in region["links"]:
            del link["speed"]
    return document


def test_a_release_is_everywhere_where_it_belongs_and_nowhere_else(mesh: Fleet) -> None:
    release = images.image(layers=[os.urandom(2 * MIB) for _ in range(3)])
    secret = images.image(layers=[os.urandom(MIB)])
    layout = images.write_layout(mesh.folder / "pushed", {"release": release, "secret": secret})
    source = mesh.registries[topology.CN]
    parts.push(layout, "secret", source, f"{SECRET_APP}:{topology.MAINLAND_TAG}")
    for tag in topology.BOTH_TAGS:
        parts.push(layout, "release", source, f"{APP}:{tag}")
    until("the mainland", lambda: _have(mesh, INSIDE, APP, topology.MAINLAND_TAG, release), within=60)
    until("the secret", lambda: _have(mesh, INSIDE, SECRET_APP, topology.MAINLAND_TAG, secret), within=60)
    until("outside", lambda: _have(mesh, OUTSIDE, APP, topology.GLOBAL_TAG, release), within=60)

    mesh.run("wait", f"{topology.EU}/{APP}:{topology.GLOBAL_TAG}", "--timeout", "60", "--server", mesh.api)
    where = json.loads(mesh.run("where", f"{topology.CN}/{APP}", "-o", "json", "--server", mesh.api))
    held = {(spot["place"], one["tag"]): spot["digest"] for one in where for spot in one["places"]}
    assert {held[place, tag] for place in INSIDE for tag in topology.BOTH_TAGS} == {release.digest}

    for place in OUTSIDE:
        registry = mesh.registries[place]
        assert parts.get(f"{registry.url}/v2/{APP}/tags/list")["tags"] == [topology.GLOBAL_TAG]
        assert parts.get(f"{registry.url}/v2/{SECRET_APP}/tags/list") is None
        assert not any(registry.has_blob(APP, blob.digest) for blob in secret.blob_descriptors)
    pulled = parts.pull(
        mesh.registries[f"{topology.EU}@singapore"], f"{APP}:{topology.GLOBAL_TAG}", mesh.folder / "pulled"
    )
    assert pulled == release.digest
    _check_bytes(mesh, release, secret)


def _have(mesh: Fleet, places: list[str], repository: str, tag: str, image: Image) -> bool:
    return all(mesh.registries[place].digest(repository, tag) == image.digest for place in places)


def _check_bytes(mesh: Fleet, release: Image, secret: Image) -> None:
    """Each source let its bytes out once for all its replicas, and Beijing once more to Frankfurt."""
    size = sum(blob.size for blob in release.blob_descriptors)
    more = sum(blob.size for blob in secret.blob_descriptors)
    usage = json.loads(mesh.run("usage", "-o", "json", "--server", mesh.api))
    sent: dict[str, int] = {}
    for link in usage["links"]:
        sent[link["from"]] = sent.get(link["from"], 0) + link["bytes"]
    once = {"beijing": 2 * size + more, "frankfurt": size}
    for region, least in once.items():  # on a busy machine a relay may be passed over for its source
        assert least <= sent[region] < 1.5 * least
    assert sum(sent.values()) == (len(OUTSIDE) + len(INSIDE) - 1) * size + (len(INSIDE) - 1) * more
