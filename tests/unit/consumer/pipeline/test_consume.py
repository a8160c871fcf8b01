"""One region's events into lanes: partitions that come and go, and a log that refuses."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from consumer.pipeline.consume import Consume
from consumer.pipeline.lanes import Lanes
from consumer.ports import AgentPorts
from consumer.progress import TaskRun
from consumer.settings import ReadWindow
from mesh.clock import SystemClock
from mesh.errors import LogUnavailable
from mesh.log.port import Append, Group, Log, Partition, Record
from mesh.log.sqlite import open_log
from mesh.metrics import Metrics
from mesh.registry.port import digest_of
from mesh.rules.state import MeshState
from mesh.rules.stops import Stops
from schemas import codec, topics
from schemas.envelope import make_id
from schemas.events import Action, Event
from schemas.names import PlaceName, Region, Repository, Tag
from schemas.state import StateRecord

CLOCK = SystemClock()
BEIJING, FRANKFURT = Region("beijing"), Region("frankfurt")
EVENTS = topics.events(BEIJING)
WINDOW = ReadWindow(records_per_partition=2, commit_every=0.0, poll=0.02, poll_while_holding=0.01)


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


def declare_another_rule(state: MeshState) -> None:
    for key, fields in (
        ("instance/us", {"account": "game", "region": "frankfurt", "url": "http://z:5000"}),
        ("rule/again", {"source": "cn", "destination": "us"}),
    ):
        noun, _, name = key.partition("/")
        record = StateRecord(id=key, time=CLOCK.now(), noun=noun, value={"name": name, **fields})
        state.apply(key, codec.encode(record), state.rev + 1)


def event(number: int) -> Event:
    return Event(
        id=make_id("event", number), time=CLOCK.now(), action=Action.MANIFEST_PUSH, place=PlaceName("cn"),
        region=BEIJING, repository=Repository(f"game/app-{number}"), tag=Tag("v1"), digest=digest_of(b"%d" % number),
        occurred_at=CLOCK.now(), rules_rev=0,
    )  # fmt: skip


@dataclass
class Reading:
    """A consumer of the topic over `group`, whose tasks run until `go` of their destination is set."""

    log: Log
    state: MeshState = field(default_factory=declared)
    lanes: Lanes = field(init=False)
    go: defaultdict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    started: list[str] = field(default_factory=list)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    dlq_calls: int = 0
    sent_to_dlq: list[tuple[str, str]] = field(default_factory=list)
    running: list[asyncio.Task[None]] = field(default_factory=list)

    async def run(self, run: TaskRun) -> None:  # as the lanes call it
        task = run.task
        self.started.append(task.repository)
        await self.go[task.destination.name].wait()

    def start(self, group: Group) -> Consume:
        self.lanes = Lanes(
            self.run, supersede=self.run, stops=Stops(), permits_per_destination=50, clock=CLOCK
        )
        rules: Any = type("UpToDate", (), {"rev": 10})
        unused: Any = None
        ports = AgentPorts(
            agent="agent", region=FRANKFURT, log=self.log, state=self.state, rules=rules, places=unused, clock=CLOCK,
            metrics=Metrics(CollectorRegistry()), random=lambda: 0.5,
        )  # fmt: skip
        consume = Consume(
            ports, source_region=BEIJING, group=group, lanes=self.lanes, prefetch=lambda _: None,
            park_running=self._never, send_to_dlq=self._send_to_dlq, window=WINDOW,
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

    async def _send_to_dlq(self, record: Record, reason: str) -> None:
        self.dlq_calls += 1
        if self.dlq_calls == 1:
            raise LogUnavailable("away")
        self.sent_to_dlq.append((record.position, reason))

    async def _never(self, run: TaskRun) -> bool:  # as the consumer calls it
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


async def take_some_away(reading: Reading, group: Group, partition: int | None = None) -> None:
    """Another member comes, is given partitions (at least `partition`), and leaves without having finished anything."""
    before = set(group._positions)  # type: ignore[attr-defined]
    others: list[Group] = []
    while (revoked := before - set(group._positions)) == set() or (  # type: ignore[attr-defined]
        partition is not None and Partition(EVENTS, partition) not in revoked
    ):
        others.append(await reading.log.group("agents", [EVENTS]))
        await others[-1].read(max_records=1, timeout=0.01)
    for other in others:
        await other.close()


async def test_a_partition_revoked_while_it_was_full_is_read_when_it_is_assigned_again(
    reading: Reading,
) -> None:
    """Its window was full, so it was paused; whoever owned it meanwhile left without having finished anything."""
    group = await reading.log.group("agents", [EVENTS])
    partitions = topics.settings(EVENTS).partitions
    count = partitions * 6
    await reading.push(count)
    reading.start(group)
    await until(lambda: len(reading.started) >= 2 * partitions)  # every window is full
    await take_some_away(reading, group)
    reading.go["eu"].set()

    async def all_finished() -> bool:
        return sum((await group.lag()).values()) == 0

    await until(all_finished)
    assert len(set(reading.started)) == count


async def test_the_end_of_what_was_read_before_a_revocation_finishes_nothing_read_after_it(
    reading: Reading,
) -> None:
    """By then there may be another rule that wants the event too, and its task has not ended."""
    group = await reading.log.group("agents", [EVENTS])
    consume = reading.start(group)
    await reading.push(1)
    await until(lambda: len(reading.started) == 1)
    ((partition, offset),) = consume._entries
    declare_another_rule(reading.state)
    await take_some_away(reading, group, partition.number)
    await until(lambda: len(reading.started) == 2)
    reading.go["eu"].set()
    await until(lambda: len(list(reading.lanes.entries())) == 1)
    assert (partition, offset) in consume._entries
    assert consume._offsets.in_flight(partition) == 1
    reading.go["us"].set()
    await until(lambda: consume._offsets.in_flight(partition) == 0)
    assert await asyncio.wait_for(_committed(group, partition), 20) == offset + 1


async def _committed(group: Group, partition: Partition) -> int:
    while not (found := group._membership.committed[partition]):  # type: ignore[attr-defined]
        await asyncio.sleep(0.01)
    return int(found)


async def test_truncated_records_are_reported_once_and_those_that_are_left_are_read(
    reading: Reading,
) -> None:
    """The first attempt to report them meets a log that is away."""
    group, partition = await reading.log.group("agents", [EVENTS]), Partition(EVENTS, 3)
    lost = [{}, {partition: 7}]
    group.truncated = lambda: lost.pop() if lost else {}  # type: ignore[method-assign]
    await reading.push(2)
    reading.start(group)
    await until(lambda: len(reading.started) == 2)
    assert [position for position, _ in reading.sent_to_dlq] == [f"{EVENTS}[3]@7"]
    assert "deleted before they were read" in reading.sent_to_dlq[0][1]


async def test_a_region_without_events_is_asked_for_some_rarely_and_is_left_at_once(reading: Reading) -> None:
    """An agent follows each region that its rules copy from, and most of these are idle most of the time."""
    group = await reading.log.group("agents", [EVENTS])
    real, waits = group.read, list[float]()

    async def read(*, max_records: int, timeout: float) -> Any:
        waits.append(timeout)
        return await real(max_records=max_records, timeout=timeout)

    group.read = read  # type: ignore[method-assign]
    reading.start(group)
    await until(lambda: waits == [WINDOW.poll_while_idle])
    await reading.push(1)
    await until(lambda: len(reading.started) == 1)
    assert waits[:2] == [WINDOW.poll_while_idle, WINDOW.poll]  # the record ended the wait; its task runs
    reading.go["eu"].set()
    await until(lambda: waits[-1] == WINDOW.poll_while_idle)
    assert sum((await group.lag()).values()) == 0  # committed before the long wait
    reading.stopping.set()
    await asyncio.wait_for(*reading.running, WINDOW.poll_while_idle / 2)
