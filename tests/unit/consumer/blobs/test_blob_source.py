"""How long blobs wait for the relay that the tree names: once for all blobs, and once for an image."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from consumer.blobs.blob_source import BlobSources, RelayWaiter
from consumer.blobs.holder_health import HolderHealth
from consumer.blobs.link_cost import LinkCost
from consumer.blobs.relay.client import NotYet
from consumer.blobs.relay.incoming import Incoming
from consumer.blobs.relay.parents import RelayParents
from consumer.task import Task
from mesh.errors import NotFound, RegistryError, Unreachable
from mesh.metrics import Metrics
from mesh.registry.port import Descriptor, digest_of
from mesh.rules.matching.compiled_rule import CompiledRule
from mesh.rules.state import MeshState
from schemas import codec
from schemas.completions import Side
from schemas.events import Action, Event
from schemas.names import MediaType, Region, Repository, Tag
from schemas.rules import ReplicaRule
from schemas.state import StateRecord
from tests.support.manual_clock import ManualClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SHANGHAI, CHENGDU = Region("shanghai"), Region("chengdu")
INSTANCES = ("cn", "tools")
URL = "http://agent.shanghai:8082"


def declared() -> MeshState:
    state = MeshState()
    things: dict[str, dict[str, Any]] = {
        f"region/{it}": {"jurisdiction": "cn"} for it in ("beijing", SHANGHAI, CHENGDU)
    }
    for name in INSTANCES:
        things[f"instance/{name}"] = {"account": "game", "region": "beijing", "url": f"http://{name}:5000"}
        for region in (SHANGHAI, CHENGDU):
            fields = {"instance": name, "region": region, "url": f"http://{name}.{region}:5000"}
            things[f"replica/{name}@{region}"] = fields
    for rev, (key, fields) in enumerate(things.items()):
        noun, _, name = key.partition("/")
        named = fields if noun == "replica" else {"name": name, **fields}
        state.apply(key, codec.encode(StateRecord(id=key, time=NOW, noun=noun, value=named)), rev)
    return state


STATE = declared()


def task(instance: str = "cn") -> Task:
    event = Event(
        id="push", time=NOW, action=Action.MANIFEST_PUSH, place=instance, region="beijing", repository="game/app",
        tag="v1", digest=digest_of(b"image"), occurred_at=NOW, rules_rev=0,
    )  # fmt: skip
    source, destination = STATE.place(instance), STATE.place(f"{instance}@{CHENGDU}")
    assert source is not None
    assert destination is not None
    rule = ReplicaRule(name=destination.name, source=instance, destination=destination.name)  # type: ignore[arg-type]
    return Task(
        event=event, compiled=CompiledRule(rule), source=source, destination=destination,
        repository=Repository("game/app"), destination_repository=Repository("game/app"), tag=Tag("v1"),
        digest=event.digest, rules_rev=0,
    )  # fmt: skip


def blob(number: int) -> Descriptor:
    body = b"%d" % number
    return Descriptor(MediaType("application/octet-stream"), digest_of(body), len(body))


class Shanghai:
    """The relay that should send all blobs; it answers as `says`."""

    def __init__(self, says: Callable[[Descriptor], RegistryError]) -> None:
        self.says, self.asked = says, Counter[str]()

    def live_regions(self) -> list[Region]:
        return [SHANGHAI]

    def relays(self, region: Region, digest: object) -> list[str]:
        return [URL] if region == SHANGHAI else []

    @asynccontextmanager
    async def read(
        self, url: str, place: str, _: object, wanted: Descriptor, offset: int
    ) -> AsyncIterator[Any]:
        self.asked[wanted.digest] += 1
        raise self.says(wanted)
        yield


class Origin:
    """The source, which has every blob."""

    @asynccontextmanager
    async def read_blob(
        self, _: object, wanted: Descriptor, *, offset: int | None = None
    ) -> AsyncIterator[Any]:
        yield iter(())


class Mesh:
    def __init__(self, says: Callable[[Descriptor], RegistryError]) -> None:
        self.clock, self.relay = ManualClock(NOW), Shanghai(says)
        relay: Any = self.relay
        incoming, link_cost = Incoming(lambda: False), LinkCost(CHENGDU, STATE, lambda _: None)
        health = HolderHealth(self.clock, Metrics(CollectorRegistry()))
        self.sources = BlobSources(
            state=STATE, registry=lambda _: pytest.fail("no place is nearby"), link_cost=link_cost, peer=relay,
            parents=RelayParents(CHENGDU, STATE, relay, incoming, link_cost.declared_cost, lambda: True),
            waiter=RelayWaiter(health, incoming, self.clock),
        )  # fmt: skip

    async def open(self, number: int, image_sources: Any, instance: str = "cn") -> None:
        """Opens the blob and expects it to come from the source."""
        origin: Any = Origin()
        async with self.sources.stream(blob(number), task(instance), origin, image_sources) as stream:
            await stream.open()
            assert stream.name == instance


async def test_an_unreachable_relay_is_asked_once_for_all_images_and_instances() -> None:
    mesh = Mesh(lambda _: Unreachable("no answer", side=Side.SOURCE))
    for instance in INSTANCES:
        for number in range(3):
            image_sources = await mesh.sources.of_image(task(instance), None)
            await mesh.open(number, image_sources, instance)
    assert mesh.relay.asked.total() == 1


async def test_a_wait_for_a_relay_ends_when_another_wait_for_it_was_in_vain() -> None:
    mesh = Mesh(lambda _: NotFound("it is unknown", side=Side.SOURCE, status=404))

    async def later(number: int) -> None:
        while mesh.clock.monotonic() < number:
            await asyncio.sleep(0)
        await mesh.open(number, await mesh.sources.of_image(task(), None))

    await asyncio.gather(*(later(number) for number in range(5)))
    assert 5 < mesh.clock.monotonic() < 6


async def test_a_relay_that_never_gets_a_blob_costs_an_image_one_wait() -> None:
    mesh = Mesh(lambda _: NotYet("it is expected", side=Side.SOURCE, status=202))
    image_sources, waited = await mesh.sources.of_image(task(), None), 0.0
    for number in range(10):
        before = mesh.clock.monotonic()
        await mesh.open(number, image_sources)
        waited += mesh.clock.monotonic() - before
        await mesh.clock.sleep(40)  # as long as a large blob takes: it is trusted again by then
    assert 30 < waited < 31
    assert mesh.relay.asked[blob(9).digest] == 1


async def test_each_blob_waits_for_a_slow_relay_that_answers() -> None:
    mesh = Mesh(lambda wanted: NotYet("it is expected", side=Side.SOURCE, status=202))
    image_sources = await mesh.sources.of_image(task(), None)
    waited = []
    for number in range(3):
        mesh.relay.says = _after(mesh, 20)
        before = mesh.clock.monotonic()
        await mesh.open(number, image_sources)
        waited.append(round(mesh.clock.monotonic() - before))
    assert waited == [20, 20, 20]


def _after(mesh: Mesh, seconds: float) -> Callable[[Descriptor], RegistryError]:
    """Expects the blob at first, and then refuses it, which is not a wait in vain."""
    until = mesh.clock.monotonic() + seconds

    def says(_: Descriptor) -> RegistryError:
        if mesh.clock.monotonic() < until:
            return NotYet("it is expected", side=Side.SOURCE, status=202)
        return RegistryError("it waits for us", side=Side.SOURCE, status=409)

    return says
