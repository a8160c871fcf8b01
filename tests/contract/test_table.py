"""Tables over each engine: what is on the log when a reader asks is applied when it continues."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mesh.errors import LogUnavailable
from mesh.log.port import Append, Log, Record
from mesh.log.table import Table
from schemas import topics
from schemas.codec import DecodeError


class Held:
    """The owner of a table: keeps the last value of each key, and unreadable records."""

    def __init__(self, log: Log, topic: str) -> None:
        self.values: dict[str, bytes] = {}
        self.unreadable: list[tuple[Record, str]] = []
        self.table = Table(log, topic, self.apply, unreadable=self.refuse)

    def apply(self, record: Record) -> None:
        if record.value == b"garbage":
            raise DecodeError("not JSON", record.value)
        if record.value is None:
            self.values.pop(record.key, None)
        else:
            self.values[record.key] = record.value

    async def refuse(self, record: Record, reason: str) -> None:
        self.unreadable.append((record, reason))


@asynccontextmanager
async def running(held: Held) -> AsyncIterator[Held]:
    task = asyncio.create_task(held.table.run())
    try:
        async with asyncio.timeout(60):
            yield held
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture(params=["status", "tags"])  # of one partition, and of twelve
async def topic(request, log, region) -> str:
    name = f"mesh.{region}.{request.param}"
    await log.ensure([name])
    return name


async def test_a_reader_sees_what_it_wrote(log, topic):
    async with running(Held(log, topic)) as held:
        for number in range(20):
            await log.append([Append(topic, f"k{number % 3}", b"%d" % number)])
            await held.table.caught_up()
            assert held.values[f"k{number % 3}"] == b"%d" % number
        await log.append([Append(topic, "k0", None)])
        await held.table.caught_up()
        assert sorted(held.values) == ["k1", "k2"]


async def test_an_empty_topic_is_caught_up(log, topic):
    async with running(Held(log, topic)) as held:
        await held.table.caught_up()
        assert held.values == {}


async def test_holes_delay_no_reader(engine, topic):
    log = await engine.open()
    await log.append([Append(topic, f"k{n}", b"old") for n in range(30)])
    await log.append([Append(topic, f"k{n}", b"new") for n in range(30)])
    await log.append([Append(topic, f"k{n}", None) for n in range(30)])
    async with running(Held(log, topic)) as held:
        await held.table.caught_up()
        assert held.values == {}
        assert held.table.rev == (await log.end(topic))[0] - 1


async def test_it_becomes_ready_by_itself(log, topic):
    await log.append([Append(topic, "k", b"v")])
    held = Held(log, topic)
    assert not held.table.ready
    async with running(held):
        while not held.table.ready:
            await asyncio.sleep(0.01)
        assert held.values == {"k": b"v"}


async def test_rev_is_the_last_offset_of_the_first_partition(log, region):
    topic = topics.status(region)
    await log.ensure([topic])
    held = Held(log, topic)
    assert held.table.rev == -1
    async with running(held):
        await held.table.caught_up()
        assert held.table.rev == -1
        for _ in range(3):
            (offset,) = await log.append([Append(topic, "same", b"v")])
            await held.table.wait_for(offset)
            assert held.table.rev == offset


async def test_waiting_for_a_revision_ends_when_it_comes(log, region):
    topic = topics.status(region)
    await log.ensure([topic])
    async with running(Held(log, topic)) as held:
        waiting = asyncio.create_task(held.table.wait_for(1))
        await log.append([Append(topic, "a", b"0")])
        await held.table.wait_for(0)
        assert not waiting.done()
        await log.append([Append(topic, "a", b"1")])
        await waiting
        assert held.values == {"a": b"1"}


async def test_unreadable_records_are_passed_on_and_delay_nothing(log, topic):
    async with running(Held(log, topic)) as held:
        await log.append([Append(topic, "a", b"garbage"), Append(topic, "b", b"fine")])
        await held.table.caught_up()
        assert held.values == {"b": b"fine"}
        assert [(record.key, record.value, reason) for record, reason in held.unreadable] == [
            ("a", b"garbage", "not JSON")
        ]


async def test_many_readers_at_once_each_see_their_own(log, topic):
    async with running(Held(log, topic)) as held:

        async def write_and_read(key: str) -> None:
            for number in range(10):
                await log.append([Append(topic, key, b"%d" % number)])
                await held.table.caught_up()
                assert held.values[key] == b"%d" % number

        await asyncio.gather(*(write_and_read(f"k{n}") for n in range(20)))


async def test_a_cancelled_reader_disturbs_no_other(log, topic):
    async with running(Held(log, topic)) as held:
        cancelled = [asyncio.create_task(held.table.caught_up()) for _ in range(5)]
        other = asyncio.create_task(held.table.caught_up())
        await asyncio.sleep(0)
        for reader in cancelled:
            reader.cancel()
        await other
        await log.append([Append(topic, "k", b"v")])
        await held.table.caught_up()
        assert held.values == {"k": b"v"}


async def test_readers_that_wait_when_the_table_stops_get_an_error(log, region):
    topic = topics.status(region)
    await log.ensure([topic])
    async with running(Held(log, topic)) as held:
        await held.table.caught_up()
        waiting = asyncio.create_task(held.table.wait_for(10))
        await asyncio.sleep(0)
    with pytest.raises(LogUnavailable):
        await waiting


async def test_a_restarted_table_holds_the_same(engine, topic):
    log = await engine.open()
    await log.append([Append(topic, f"k{n % 7}", b"%d" % n) for n in range(50)])
    async with running(Held(log, topic)) as held:
        await held.table.caught_up()
        before = dict(held.values)
    await engine.crash(log)
    async with running(Held(await engine.open(), topic)) as held:
        await held.table.caught_up()
        assert held.values == before
