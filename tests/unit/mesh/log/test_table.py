"""A table while the log is unavailable at times, and which readers share a barrier."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import BaseModel

from mesh.clock import SystemClock
from mesh.errors import LogError, LogUnavailable
from mesh.log.port import Append, Batch, Group, Log, Record
from mesh.log.sqlite import open_log
from mesh.log.table import Table
from tests.support.manual_clock import ManualClock

STATUS = "mesh.a.status"


class FlakyLog:
    """A log whose `follow` breaks and whose `end` fails or stalls on demand."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.breaks = 0  # how many times follow still breaks, each time after a batch
        self.refuses = 0
        self.starts: list[Mapping[int, int] | None] = []
        self.asked = 0
        self.stall: asyncio.Event | None = None

    async def follow(
        self, topic: str, *, start: Mapping[int, int] | None = None
    ) -> AsyncGenerator[Batch, None]:
        self.starts.append(start)
        async with aclosing(self._log.follow(topic, start=start)) as batches:
            async for batch in batches:
                yield batch
                if self.breaks:
                    self.breaks -= 1
                    raise LogUnavailable("the line broke")

    async def end(self, topic: str) -> Mapping[int, int]:
        self.asked += 1
        found = await self._log.end(topic)
        if self.refuses:
            self.refuses -= 1
            raise LogUnavailable("no answer")
        if self.stall is not None:
            await self.stall.wait()
        return found

    async def append(self, records: Sequence[Append], *, then: Sequence[Append] = ()) -> Sequence[int]:
        return await self._log.append(records, then=then)

    async def group(self, name: str, topics: Sequence[str]) -> Group:
        return await self._log.group(name, topics)

    async def ensure(self, topics: Sequence[str]) -> Sequence[str]:
        return await self._log.ensure(topics)

    async def missing(self, topics: Sequence[str]) -> Sequence[str]:
        return await self._log.missing(topics)

    async def close(self) -> None:
        await self._log.close()


@pytest.fixture
async def log(tmp_path):
    log = FlakyLog(await open_log(tmp_path / "log.db", clock=SystemClock()))
    await log.ensure([STATUS])
    yield log
    await log.close()


async def ignored(record: Record, reason: str) -> None:
    pass


def table_of(log, applied, unreadable=ignored):
    return Table(
        log, STATUS, applied, unreadable=unreadable, clock=ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    )


@asynccontextmanager
async def running(table):
    task = asyncio.create_task(table.run())
    try:
        async with asyncio.timeout(10):
            yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until_ready(table):
    while not table.ready:
        await asyncio.sleep(0)


async def put(log, *numbers):
    for number in numbers:
        await log.append([Append(STATUS, f"k{number}", b"%d" % number)])


async def test_it_continues_at_its_position_when_the_log_is_available_again(log):
    applied = []
    table = table_of(log, lambda record: applied.append(record.value))
    await put(log, 1, 2, 3)
    log.breaks = 3
    async with running(table):
        for number in range(4, 10):
            await put(log, number)
            await table.caught_up()
    assert applied == [b"%d" % number for number in range(1, 10)]
    first, *later = log.starts
    assert first == {}
    assert len(later) == 3
    assert all(start[0] >= 3 for start in later)


async def test_a_long_outage_does_not_end_it(log):
    table = table_of(log, lambda record: None)
    log.breaks = 2000
    async with running(table) as task:
        while log.breaks:
            await asyncio.sleep(0.001)
            await put(log, 1)
        await table.caught_up()
        assert not task.done()


async def test_a_reader_gets_the_error_of_the_log(log):
    table = table_of(log, lambda record: None)
    async with running(table):
        await table.caught_up()
        log.refuses = 1
        with pytest.raises(LogUnavailable):
            await table.caught_up()
        await table.caught_up()


async def test_it_becomes_ready_once_the_log_answers(log):
    log.refuses = 5
    table = table_of(log, lambda record: None)
    async with running(table):
        while not table.ready:
            await asyncio.sleep(0.001)
    assert log.asked == 6


async def test_one_request_serves_all_readers_that_waited_before_it(log):
    table = table_of(log, lambda record: None)
    async with running(table):
        await until_ready(table)
        before = log.asked
        await asyncio.gather(*(table.caught_up() for _ in range(50)))
        assert log.asked == before + 1


async def test_a_reader_that_comes_during_a_request_gets_the_next_one(log):
    seen = []
    table = table_of(log, lambda record: seen.append(record.value))
    async with running(table):
        await until_ready(table)
        before = log.asked
        log.stall = asyncio.Event()
        early = asyncio.create_task(table.caught_up())
        while log.asked == before:
            await asyncio.sleep(0)
        await put(log, 7)  # after the answer to the early request was made
        late = asyncio.create_task(table.caught_up())
        await asyncio.sleep(0)
        log.stall.set()
        await asyncio.gather(early, late)
        assert log.asked == before + 2
        assert seen == [b"7"]


async def test_a_missing_topic_ends_it(log):
    table = Table(log, "mesh.nowhere.status", lambda record: None, unreadable=ignored)
    with pytest.raises(ExceptionGroup) as ended:
        await table.run()
    assert ended.group_contains(LogError)


class Shape(BaseModel):
    size: int


async def test_a_value_of_the_wrong_shape_is_passed_on_without_its_content(log):
    refused = []

    async def unreadable(record: Record, reason: str) -> None:
        refused.append((record.key, reason))

    table = table_of(log, lambda record: Shape.model_validate_json(record.value) and None, unreadable)
    async with running(table):
        await log.append([Append(STATUS, "a", b'{"size": "secret"}'), Append(STATUS, "b", b'{"size": 1}')])
        await table.caught_up()
    assert [key for key, _ in refused] == ["a"]
    assert "size" in refused[0][1]
    assert "secret" not in refused[0][1]


async def test_a_dead_letter_that_cannot_be_written_is_written_again(log):
    attempts = []

    async def unreadable(record: Record, reason: str) -> None:
        attempts.append(record.offset)
        if len(attempts) < 3:
            raise LogUnavailable("no space for dead letters")

    table = table_of(log, lambda record: Shape.model_validate_json(record.value) and None, unreadable)
    async with running(table):
        await put(log, 1)  # a number is no shape
        await table.caught_up()
    assert attempts == [0, 0, 0]


async def test_the_time_of_the_log_is_that_of_the_newest_record_and_goes_on(log):
    """The table's own clock is of January; the log stamps records with the real time."""
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    table = Table(log, STATUS, lambda record: None, unreadable=ignored, clock=clock)
    await put(log, 1)
    async with running(table):
        await until_ready(table)
        assert table.log_time() == clock.now()  # the record may be old: nobody was here when it was written
        await put(log, 2)
        await table.caught_up()
        found = table.log_time()
        assert abs(datetime.now(UTC) - found) < timedelta(minutes=1)
        await clock.sleep(40)
        assert table.log_time() == found + timedelta(seconds=40)
