"""Prefetch never crosses a jurisdiction or an account, by the declarations at the time of the copy."""

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from consumer.blobs.prefetch import Prefetcher
from consumer.blobs.prefetch_ledger import PrefetchLedger
from consumer.pipeline.match import match_prefetch
from consumer.ports import AgentPorts
from mesh.clock import SystemClock
from mesh.metrics import Metrics
from mesh.registry.port import digest_of
from mesh.rules.state import MeshState
from schemas import codec
from schemas.events import Action, Event
from schemas.names import PlaceName, Region, Repository
from schemas.state import StateRecord

CLOCK = SystemClock()
FRANKFURT = Region("frankfurt")
THINGS: dict[str, dict[str, Any]] = {
    "region/beijing": {"jurisdiction": "cn"},
    "region/frankfurt": {"jurisdiction": "cn"},
    "instance/cn": {"account": "game", "region": "beijing", "url": "http://x:5000"},
    "instance/eu": {"account": "game", "region": "frankfurt", "url": "http://y:5000"},
    "rule/prefetch": {"source": "cn", "destination": "eu", "prefetch": True},
}


def pushed() -> Event:
    """Pushed now, as an old blob event is not prefetched."""
    return Event(
        id="blob", time=CLOCK.now(), action=Action.BLOB_PUSH, place=PlaceName("cn"), region=Region("beijing"),
        repository=Repository("game/app"), digest=digest_of(b"layer"), occurred_at=CLOCK.now(), rules_rev=0,
    )  # fmt: skip


def declare(state: MeshState, **things: dict[str, Any]) -> MeshState:
    for key, fields in things.items():
        noun, _, name = key.partition("/")
        record = StateRecord(id=key, time=CLOCK.now(), noun=noun, value={"name": name, **fields})
        state.apply(key, codec.encode(record), state.rev + 1)
    return state


def test_no_layer_is_prefetched_into_another_account() -> None:
    state = declare(MeshState(), **THINGS)
    assert len(match_prefetch(pushed(), state, FRANKFURT)) == 1
    declare(state, **{"instance/eu": THINGS["instance/eu"] | {"account": "other"}})
    assert match_prefetch(pushed(), state, FRANKFURT) == []


class Places:
    """Using any registry meets a bug."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def registry(self, place: Any, *_: object) -> object:
        self.asked.append(place.name)
        raise LookupError("a bug")


async def asked_for(state: MeshState, *changes: dict[str, dict[str, Any]]) -> list[str]:
    """Returns the places whose registry is used when two layers are prefetched after `changes`."""
    places: Any = Places()
    unused: Any = None
    ports = AgentPorts(
        agent="agent", region=FRANKFURT, log=unused, state=state, rules=unused, places=places, clock=CLOCK,
        metrics=Metrics(CollectorRegistry()), random=unused,
    )  # fmt: skip
    prefetcher = Prefetcher(ports, copier=unused, ledger=PrefetchLedger(1000), concurrency=1)
    (wanted,) = match_prefetch(pushed(), state, FRANKFURT)
    for _ in range(2):
        prefetcher.put(wanted)
    for change in changes:
        declare(state, **change)
    working = asyncio.ensure_future(prefetcher.run())
    async with asyncio.timeout(10):
        while not prefetcher._queue.empty():
            await asyncio.sleep(0)
    for _ in range(20):  # until the last one is done
        await asyncio.sleep(0)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert prefetcher._queue.empty()
    return list(places.asked)


async def test_a_bug_costs_one_blob() -> None:
    assert await asked_for(declare(MeshState(), **THINGS)) == ["cn", "cn"]


@pytest.mark.parametrize(
    "change",
    [
        {"region/frankfurt": {"jurisdiction": "global"}},
        {"instance/eu": THINGS["instance/eu"] | {"account": "other"}},
    ],
)
async def test_the_boundary_is_checked_again_when_a_layer_is_copied(
    change: dict[str, dict[str, Any]],
) -> None:
    assert await asked_for(declare(MeshState(), **THINGS), change) == []
