"""A group's turns: each costs transactions, so records that come within a moment share one."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry

from mesh.control.ports import ControlPorts
from mesh.control.readers.group_reader import GroupReader, topic_of_each_region
from mesh.log.port import Partition, Record
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

    state, value = MeshState(), {"name": "beijing", "jurisdiction": "cn"}
    record = StateRecord(id="region", time=NOW, noun="region", value=value)
    state.apply("region/beijing", encode(record), 0)
    ports = ControlPorts(
        log=Log(group), state=state, clock=Clock(group),  # type: ignore[arg-type]
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
    return taken


async def test_records_that_come_within_a_moment_are_taken_in_one_turn() -> None:
    group = Group(waiting=1, coming=[7, 3])
    assert await _turns(group, 11) == [1, 7, 3]


async def test_a_full_turn_is_followed_by_the_next_at_once() -> None:
    group = Group(waiting=1100, coming=[5])
    assert await _turns(group, 1105) == [500, 500, 100, 5]
