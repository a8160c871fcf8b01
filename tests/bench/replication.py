"""One instance and eight replicas with an agent process each: how long until the last replica has a push.

The source is behind an uplink with a limit for the bytes per second of all its connections. The time of a push is shown
beside that of one client that pulls the same blobs through the same uplink, in turn, in one run.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

from tests.bench import workplace
from tests.bench.client import Client, MiB
from tests.bench.table import Options, Row, progress, spread
from tests.support import kafka_broker
from tests.support.fleet import Fleet, fleet
from tests.support.parts import until
from tests.support.uplink import Uplink

NEEDS = ("docker-registry", "kafka")
REPLICAS = 8
REPOSITORY = "game/app"
_RATE = 8 * MiB
_LAYERS = [16 * MiB] * 3
_REGIONS = [f"region{number}" for number in range(1, REPLICAS + 1)]


class _Round(NamedTuple):
    """Seconds, and the bytes that left the source as a multiple of the image's size."""

    one_transfer: float
    last_region: float
    sent: float
    manifest_ahead: float


def rows(options: Options) -> Iterator[Row]:
    """Yields the rows of the group `replication`."""
    rounds, layers = (1, [MiB]) if options.quick else (options.rounds, _LAYERS)
    needed = (REPLICAS + 2) * 3 * rounds * sum(layers)
    with (
        workplace.on_disk() as folder,
        workplace.for_blobs(options, needed) as (blobs, place),
        _broker(folder / "kafka") as log,
        fleet(folder, log) as mesh,
    ):
        source = mesh.registry("game", blobs)
        for region in _REGIONS:
            mesh.registry(f"game@{region}", blobs)
        with closing(Uplink(source.port, _RATE)) as uplink, closing(Client(source)) as client:
            mesh.start(mesh.replicated("game", uplink.url, _REGIONS), _REGIONS)
            mesh.know_each_other(_REGIONS)
            found = [_round(mesh, uplink, client, f"v{number}", layers) for number in range(rounds)]
        size = f"{len(layers)} x {layers[0] // MiB} MiB"
        yield from _rows(found, f"{REPLICAS} replicas, {size} through {_RATE // MiB} MiB/s, {place}, Kafka")


def _rows(found: list[_Round], where: str) -> Iterator[Row]:
    columns = _Round(*map(list, zip(*found, strict=True)))  # type: ignore[arg-type]
    ratios = [one.last_region / one.one_transfer for one in found]
    yield Row("replication: one client pulls the image once", where, f"{spread(columns.one_transfer)} s")  # type: ignore[arg-type]
    text = f"{spread(columns.last_region)} s"  # type: ignore[arg-type]
    yield Row("replication: from the first byte pushed until the last region has it", where, text)
    yield Row("replication: time to the last region over one transfer", where, f"{spread(ratios)} x", "1.5x")
    yield Row(
        "replication: bytes that the source sends", where, f"{spread(columns.sent, 3)} x the image", "1x"
    )  # type: ignore[arg-type]
    text = f"{spread(columns.manifest_ahead, 3)} s"  # type: ignore[arg-type]
    yield Row(
        "replication: layers ahead, from the manifest's push until it is pullable everywhere", where, text
    )


def _round(mesh: Fleet, uplink: Uplink, client: Client, tag: str, layers: list[int]) -> _Round:
    before, began = uplink.bytes_out, time.perf_counter()
    manifest = client.push_blobs(REPOSITORY, layers)
    digest = client.put_manifest(REPOSITORY, tag, manifest)
    _everywhere(mesh, tag, digest)
    last = time.perf_counter() - began
    sent = (uplink.bytes_out - before) / sum(layers)
    one = _pull(uplink, manifest)
    ahead = client.push_blobs(REPOSITORY, layers)
    until("the layers are everywhere", lambda: _has_layers(mesh, ahead), within=300, every=0.1)
    began = time.perf_counter()
    _everywhere(mesh, f"{tag}-ahead", client.put_manifest(REPOSITORY, f"{tag}-ahead", ahead))
    found = _Round(one, last, sent, time.perf_counter() - began)
    progress(f"replication: {tag}: {found}")
    return found


def _everywhere(mesh: Fleet, tag: str, digest: str) -> None:
    def there() -> bool:
        return all(mesh.registries[f"game@{it}"].digest(REPOSITORY, tag) == digest for it in _REGIONS)

    until(tag, there, within=300, every=0.01)


def _has_layers(mesh: Fleet, manifest: bytes) -> bool:
    digests = [layer["digest"] for layer in json.loads(manifest)["layers"]]
    return all(
        mesh.registries[f"game@{region}"].has_blob(REPOSITORY, it) for region in _REGIONS for it in digests
    )


def _pull(uplink: Uplink, manifest: bytes) -> float:
    """As a client pulls: all layers at once."""
    digests = [layer["digest"] for layer in json.loads(manifest)["layers"]]
    began = time.perf_counter()

    def read(digest: str) -> None:
        with urlopen(f"{uplink.url}/v2/{REPOSITORY}/blobs/{digest}", timeout=300) as answer:
            while answer.read(MiB):
                pass

    with ThreadPoolExecutor(len(digests)) as pool:
        list(pool.map(read, digests))
    return time.perf_counter() - began


@contextmanager
def _broker(folder: Path) -> Iterator[str]:
    broker = kafka_broker.start(folder)
    try:
        yield broker.url
    finally:
        broker.stop()
