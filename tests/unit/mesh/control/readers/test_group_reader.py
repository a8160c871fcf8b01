"""A group's turns: each costs transactions, so records that come within a moment share one."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry

from mesh.control.ports import ControlPorts
from mesh.control.readers.group_reader import GroupReader, topic_of_each_region
from mesh.errors import DatabaseRefused
from mesh.log.port import Append, Partition, Record
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from schemas import topics
from schemas.codec import encode
from schemas.names import Region
from schemas.state import StateRecord
from tests.support.manual_clock import ManualClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOPIC = topics.completions(Region("beijing"))
PARTITION = Partition(TOPIC, 0)


class Group:
    """Its records; `coming` are there after the next sleep."""

    def __init__(self, waiting: int, coming: list[int]) -> None:
        self.waiting, self.coming, self.read_so_far = waiting, coming, 0
        self.committed: Mapping[Partition, int] = {}

    async def read(self, *, max_records: int, timeout: float) -> Sequence[Record]:
        if not self.waiting:
            await asyncio.Event().wait()
        given = min(self.waiting, max_records)
        self.waiting -= given
        offsets = range(self.read_so_far, self.read_so_far + given)
        self.read_so_far += given
        return [Record(PARTITION, offset, "key", b"", NOW) for offset in offsets]

    def revoked(self) -> frozenset[Partition]:
        return frozenset()

    def truncated(self) -> Mapping[Partition, int]:
        return {}

    async def commit(self, finished: Mapping[Partition, int]) -> None:
        self.committed = finished

    async def close(self) -> None: ...


class Log:
    def __init__(self, group: Group) -> None:
        self._group = group
        self.appended: list[Append] = []

    async def append(self, records: Sequence[Append]) -> Sequence[int]:
        self.appended += records
        return [0] * len(records)

    async def missing(self, topics: Iterable[str]) -> Sequence[str]:
        return []

    async def group(self, name: str, topics: Sequence[str]) -> Group:
        return self._group


class Clock(ManualClock):
    def __init__(self, group: Group) -> None:
        super().__init__(NOW)
        self._group = group

    async def sleep(self, seconds: float) -> None:
        if self._group.coming:
            self._group.waiting += self._group.coming.pop(0)
        await super().sleep(seconds)


async def _turns(group: Group, records: int) -> list[int]:
    """How many records each turn took, until all were."""
    taken: list[int] = []
    done = asyncio.Event()

    async def take(records_of_turn: Sequence[Record]) -> None:
        taken.append(len(records_of_turn))
        if sum(taken) == records:
            done.set()

    await _read(group, Log(group), take, done)
    return taken


async def _read(
    group: Group, log: Log, take: Callable[[Sequence[Record]], Awaitable[None]], done: asyncio.Event
) -> None:
    """Reads until `done`."""
    state, value = MeshState(), {"name": "beijing", "jurisdiction": "cn"}
    record = StateRecord(id="region", time=NOW, noun="region", value=value)
    state.apply("region/beijing", encode(record), 0)
    ports = ControlPorts(
        log=log, state=state, clock=Clock(group),  # type: ignore[arg-type]
        metrics=Metrics(CollectorRegistry()), random=lambda: 0.5,
    )  # fmt: skip
    reader = GroupReader(
        "report", record_name="completion", topics=topic_of_each_region(topics.completions, state),
        decode=lambda record, _: record, take=take, ports=ports,
    )  # fmt: skip
    running = asyncio.create_task(reader.run())
    async with asyncio.timeout(10):
        await done.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_records_that_come_within_a_moment_are_taken_in_one_turn() -> None:
    group = Group(waiting=1, coming=[7, 3])
    assert await _turns(group, 11) == [1, 7, 3]


async def test_a_full_turn_is_followed_by_the_next_at_once() -> None:
    group = Group(waiting=1100, coming=[5])
    assert await _turns(group, 1105) == [500, 500, 100, 5]


async def test_what_the_database_can_never_store_is_a_dead_letter_and_the_rest_is_taken() -> None:
    group = Group(waiting=5, coming=[])
    log = Log(group)
    taken: list[int] = []
    done = asyncio.Event()

    async def take(records: Sequence[Record]) -> None:
        if any(record.offset == 2 for record in records):
            raise DatabaseRefused("a number is too large")
        taken.extend(record.offset for record in records)
        if len(taken) == 4:
            done.set()

    await _read(group, log, take, done)
    assert taken == [0, 1, 3, 4]
    (dead,) = [append for append in log.appended if append.topic == topics.dead_letters(Region("beijing"))]
    assert b"a number is too large" in (dead.value or b"")
