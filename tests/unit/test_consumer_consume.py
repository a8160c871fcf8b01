"""One region's events into lanes: partitions that come and go, and a log that refuses."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from consumer.consume import Consume, Window
from consumer.lanes import Lanes
from consumer.tally import Tally
from consumer.task import Task
from mesh.clock import SystemClock
from mesh.log.port import Append, Group, Log, Record
from mesh.log.sqlite import open_log
from mesh.metrics import Metrics
from mesh.registry.port import digest_of
from mesh.rules.state import MeshState
from schemas import codec, topics
from schemas.envelope import make_id
from schemas.events import Action, Event
from schemas.names import PlaceName, Region, Repository, Tag
from schemas.state import StateRecord

CLOCK = SystemClock()
BEIJING, FRANKFURT = Region("beijing"), Region("frankfurt")
EVENTS = topics.events(BEIJING)
WINDOW = Window(records_per_partition=2, commit_every=0.0, poll=0.02, poll_while_holding=0.01)


def declared() -> MeshState:
    state = MeshState()
    things: dict[str, dict[str, Any]] = {
        "region/beijing": {"jurisdiction": "cn"},
        "region/frankfurt": {"jurisdiction": "cn"},
        "instance/cn": {"account": "game", "region": "beijing", "url": "http://x:5000"},
        "instance/eu": {"account": "game", "region": "frankfurt", "url": "http://y:5000"},
        "rule/release": {"source": "cn", "destination": "eu"},
    }
    for rev, (key, fields) in enumerate(things.items()):
        noun, _, name = key.partition("/")
        record = StateRecord(id=key, time=CLOCK.now(), noun=noun, value={"name": name, **fields})
        state.apply(key, codec.encode(record), rev)
    return state


def event(number: int) -> Event:
    return Event(
        id=make_id("event", number), time=CLOCK.now(), action=Action.MANIFEST_PUSH, place=PlaceName("cn"),
        region=BEIJING, repository=Repository(f"game/app-{number}"), tag=Tag("v1"), digest=digest_of(b"%d" % number),
        occurred_at=CLOCK.now(), rules_rev=0,
    )  # fmt: skip


@dataclass
class Reading:
    """A consumer of the topic over `group`, whose tasks run until `go` is set."""

    log: Log
    lanes: Lanes = field(init=False)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    begun: list[str] = field(default_factory=list)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    running: list[asyncio.Task[None]] = field(default_factory=list)

    async def run(self, task: Task, tally: Tally) -> None:  # as the lanes call it
        self.begun.append(task.repository)
        await self.go.wait()

    def start(self, group: Group) -> Consume:
        self.lanes = Lanes(self.run, supersede=self.run, permits_per_destination=50, clock=CLOCK)
        table: Any = type("UpToDate", (), {"rev": 10})
        consume = Consume(
            region=FRANKFURT, source_region=BEIJING, group=group, bury=self._bury, state=declared(), table=table,
            lanes=self.lanes, ahead=lambda _: None, set_aside=self._never, clock=CLOCK,
            metrics=Metrics(CollectorRegistry()), window=WINDOW,
        )  # fmt: skip
        self.running.append(asyncio.create_task(consume.run(self.stopping)))
        return consume

    async def push(self, count: int) -> None:
        events = [event(number) for number in range(count)]
        await self.log.append([Append(EVENTS, it.key, codec.encode(it)) for it in events])

    async def end(self) -> None:
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)
        await self.lanes.drain(0)

    async def _bury(self, record: Record, reason: str) -> None:
        raise AssertionError(f"{record.position}: {reason}")

    async def _never(self, task: Task, tally: Tally) -> bool:  # as the consumer calls it
        return False


@pytest.fixture
async def reading(tmp_path: Path) -> AsyncIterator[Reading]:
    log = await open_log(tmp_path / "mesh.db", clock=CLOCK)
    await log.ensure([EVENTS])
    found = Reading(log)
    yield found
    await found.end()
    await log.close()


async def until(look: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while True:
            found = look()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)


async def test_a_partition_that_went_while_it_was_full_is_read_when_it_comes_back(reading: Reading) -> None:
    """Its window was full, so it was paused; whoever owned it meanwhile left without having finished anything."""
    group = await reading.log.group("agents", [EVENTS])
    partitions = topics.settings(EVENTS).partitions
    count = partitions * 6
    await reading.push(count)
    reading.start(group)
    await until(lambda: len(reading.begun) >= 2 * partitions)  # every window is full
    other = await reading.log.group("agents", [EVENTS])
    await other.read(max_records=1, timeout=0.01)
    await until(lambda: len(group._positions) < partitions)  # type: ignore[attr-defined]
    await other.close()
    reading.go.set()

    async def all_finished() -> bool:
        return sum((await group.lag()).values()) == 0

    await until(all_finished)
    assert len(set(reading.begun)) == count
