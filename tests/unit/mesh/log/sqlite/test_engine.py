"""What only the embedded log promises: bounded memory, wake-ups, sessions of members, and retention."""

import asyncio
import contextlib
import sqlite3
import time
from contextlib import aclosing
from datetime import UTC, datetime

import pytest
import structlog

from mesh.log.port import Append, Partition
from mesh.log.sqlite import open_log
from tests.support.manual_clock import ManualClock

EVENTS, DEAD_LETTERS, STATUS, TAGS = "mesh.a.events", "mesh.a.dead-letters", "mesh.a.status", "mesh.a.tags"
DAY = 24 * 3600


@pytest.fixture
def clock():
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
async def log(tmp_path, clock):
    log = await open_log(tmp_path / "log.db", clock=clock)
    await log.ensure([EVENTS, DEAD_LETTERS, STATUS, TAGS])
    yield log
    await log.close()


def offsets_in(path, topic):
    """Returns the offsets and keys in the file, through a connection of its own."""
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "SELECT position % (1 << 40), key FROM records JOIN partitions ON position >> 40 = id WHERE topic = ? "
        "ORDER BY position",
        (topic,),
    ).fetchall()
    connection.close()
    return rows


async def test_an_append_creates_its_topic(tmp_path, clock):
    log = await open_log(tmp_path / "log.db", clock=clock)
    await asyncio.gather(*(log.append([Append("mesh.b.events", f"k{n}", b"v")]) for n in range(10)))
    assert sum((await log.end("mesh.b.events")).values()) == 10
    await log.close()


async def test_offsets_are_dense_and_never_used_twice(tmp_path, clock, log):
    for number in range(3):
        assert await log.append([Append(STATUS, "only", b"%d" % number)]) == [number]
    await log.append([Append(STATUS, "only", None)])
    await log.close()
    await clock.sleep(2 * DAY)  # the tombstone, the newest record of all, is deleted
    log = await open_log(tmp_path / "log.db", clock=clock)
    async with asyncio.timeout(5):
        while offsets_in(tmp_path / "log.db", STATUS):
            await asyncio.sleep(0.01)
    assert await log.end(STATUS) == {0: 4}
    assert await log.append([Append(STATUS, "other", b"v")]) == [4]
    await log.close()


async def test_a_superseded_record_is_deleted_at_once(tmp_path, log):
    await log.append([Append(STATUS, "a", b"1"), Append(STATUS, "a", b"2"), Append(STATUS, "b", b"1")])
    await log.append([Append(STATUS, "b", b"2")])
    assert offsets_in(tmp_path / "log.db", STATUS) == [(1, "a"), (3, "b")]


async def test_a_tombstone_stays_long_enough_to_be_seen(tmp_path, clock, log):
    await log.append(
        [Append(STATUS, "early", b"v"), Append(STATUS, "kept", b"v"), Append(STATUS, "early", None)]
    )
    await clock.sleep(0.75 * DAY)
    await log.append([Append(STATUS, "kept", b"v2"), Append(STATUS, "late", None)])
    await clock.sleep(0.5 * DAY)  # the topic keeps tombstones for a day
    await log.close()
    log = await open_log(tmp_path / "log.db", clock=clock)
    async with asyncio.timeout(5):
        while len(offsets_in(tmp_path / "log.db", STATUS)) > 2:
            await asyncio.sleep(0.01)
    assert [key for _, key in offsets_in(tmp_path / "log.db", STATUS)] == ["kept", "late"]
    await log.close()


async def test_old_records_are_deleted_but_never_before_the_slowest_group(tmp_path, clock, log):
    partition = Partition(DEAD_LETTERS, 0)
    await log.append([Append(DEAD_LETTERS, "k", b"%d" % n) for n in range(10)])
    slow, fast = [await log.group(name, [DEAD_LETTERS]) for name in ("slow", "fast")]
    await slow.commit({partition: 4})
    await fast.commit({partition: 10})
    await clock.sleep(40 * DAY)  # the retention of dead letters is 30 days
    await log.append([Append(DEAD_LETTERS, "k", b"new")])
    await log.close()
    with structlog.testing.capture_logs() as logs:
        log = await open_log(tmp_path / "log.db", clock=clock)
        async with asyncio.timeout(5):
            while not logs:
                await asyncio.sleep(0.01)
    assert [offset for offset, _ in offsets_in(tmp_path / "log.db", DEAD_LETTERS)] == [*range(4, 11)]
    assert [(line["action"], line["group"], line["topic"]) for line in logs] == [
        ("log_held", "slow", DEAD_LETTERS)
    ]
    await (await log.group("slow", [DEAD_LETTERS])).commit({partition: 11})
    await log.close()
    log = await open_log(tmp_path / "log.db", clock=clock)
    async with asyncio.timeout(5):
        while len(offsets_in(tmp_path / "log.db", DEAD_LETTERS)) > 1:
            await asyncio.sleep(0.01)
    assert offsets_in(tmp_path / "log.db", DEAD_LETTERS) == [(10, "k")]
    await log.close()


async def test_a_group_that_nobody_joins_any_more_keeps_no_records(tmp_path, clock, log):
    """Such as the groups of a region that was removed: they kept every record of the other regions for ever."""
    partition = Partition(DEAD_LETTERS, 0)
    await log.append([Append(DEAD_LETTERS, "k", b"%d" % n) for n in range(10)])
    stays, slow, leaves = [await log.group(name, [DEAD_LETTERS]) for name in ("stays", "slow", "leaves")]
    await stays.commit({partition: 10})
    await slow.commit({partition: 7})
    await leaves.close()
    for _ in range(2):
        await clock.sleep(20 * DAY)
        await log._sweep_once()
    assert (
        len(offsets_in(tmp_path / "log.db", DEAD_LETTERS)) == 10
    )  # for the 30 days of the topic it may come back
    await clock.sleep(20 * DAY)
    await log._sweep_once()
    assert [offset for offset, _ in offsets_in(tmp_path / "log.db", DEAD_LETTERS)] == [7, 8, 9]
    await clock.sleep(400 * DAY)
    await log._sweep_once()
    assert [offset for offset, _ in offsets_in(tmp_path / "log.db", DEAD_LETTERS)] == [
        7,
        8,
        9,
    ]  # it has a member


async def test_a_group_that_joins_again_in_time_goes_on_where_it_was(tmp_path, clock, log):
    partition = Partition(DEAD_LETTERS, 0)
    await log.append([Append(DEAD_LETTERS, "k", b"%d" % n) for n in range(10)])
    member = await log.group("g", [DEAD_LETTERS])
    await member.commit({partition: 6})
    await member.close()
    await clock.sleep(DAY)
    await log._sweep_once()
    await log.close()
    await clock.sleep(400 * DAY)
    log = await open_log(tmp_path / "log.db", clock=clock)
    await log._sweep_once()  # the process has just started: its groups have not joined yet
    member = await log.group("g", [DEAD_LETTERS])
    await clock.sleep(DAY)
    await log._sweep_once()
    assert await member.lag() == {partition: 4}
    await log.close()


async def test_the_space_of_deleted_records_is_given_back(tmp_path, clock, log):
    path = tmp_path / "log.db"
    for _ in range(24):
        await log.append([Append(DEAD_LETTERS, "k", b"x" * 900_000)])
    await clock.sleep(40 * DAY)
    await log._sweep_once()
    await log.append([Append(DEAD_LETTERS, "k", b"new")])
    await log.close()  # which copies the write-ahead log into the file
    assert offsets_in(path, DEAD_LETTERS) == [(24, "k")]
    assert path.stat().st_size < 8_000_000


async def test_a_file_of_an_earlier_version_is_migrated_and_shrinks(tmp_path, clock):
    path = tmp_path / "old.db"
    log = await open_log(path, clock=clock)
    await log.ensure([DEAD_LETTERS])
    for _ in range(24):
        await log.append([Append(DEAD_LETTERS, "k", b"x" * 900_000)])
    await (await log.group("g", [DEAD_LETTERS])).commit({Partition(DEAD_LETTERS, 0): 24})
    await log.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "DROP INDEX slowest; ALTER TABLE commits DROP COLUMN left_at; PRAGMA journal_mode = DELETE;"
            "PRAGMA auto_vacuum = NONE; VACUUM; DELETE FROM records"
        )
    assert path.stat().st_size > 20_000_000
    log = await open_log(path, clock=clock)
    assert await (await log.group("g", [DEAD_LETTERS])).lag() == {Partition(DEAD_LETTERS, 0): 0}
    await log.close()
    assert path.stat().st_size < 1_000_000


async def test_a_new_group_starts_at_the_oldest_record_that_is_left(tmp_path, clock, log):
    await log.append([Append(DEAD_LETTERS, "k", b"old") for _ in range(5)])
    await clock.sleep(40 * DAY)
    await log.append([Append(DEAD_LETTERS, "k", b"new")])
    await log.close()
    log = await open_log(tmp_path / "log.db", clock=clock)
    async with asyncio.timeout(5):
        while len(offsets_in(tmp_path / "log.db", DEAD_LETTERS)) > 1:
            await asyncio.sleep(0.01)
    member = await log.group("g", [DEAD_LETTERS])
    assert await member.lag() == {Partition(DEAD_LETTERS, 0): 1}
    assert [record.value for record in await member.read(max_records=10, timeout=1)] == [b"new"]
    await log.close()


async def test_one_read_takes_bounded_memory(log):
    large = b"x" * 800_000
    for _ in range(5):
        await log.append([Append(DEAD_LETTERS, "k", large) for _ in range(8)])
    member = await log.group("g", [DEAD_LETTERS])
    sizes = []
    while found := await member.read(max_records=1000, timeout=0.05):
        sizes.append(sum(len(record.value) for record in found))
    assert sum(sizes) == 40 * len(large)
    assert max(sizes) < 10 << 20
    async with aclosing(log.follow(DEAD_LETTERS)) as batches:
        batch = await anext(batches)
        assert 0 < sum(len(record.value) for record in batch.records) < 10 << 20


async def test_a_position_is_reported_only_when_nothing_is_missing_before_it(log):
    await log.append([Append(STATUS, f"k{n}", b"old") for n in range(2500)])
    held = {}
    async with aclosing(log.follow(STATUS)) as batches:
        batch = await anext(batches)
        held |= {record.key: record.value for record in batch.records}
        assert len(held) < 1400
        await log.append([Append(STATUS, "k1400", b"new")])  # moves behind all others
        while batch.positions[0] < 2500:
            batch = await anext(batches)
            held |= {record.key: record.value for record in batch.records}
            assert {f"k{n}" for n in range(min(batch.positions[0], 2500))} <= held.keys()
    assert len(held) == 2500
    assert held["k1400"] == b"new"


async def test_no_partition_starves_behind_a_long_one(log):
    await log.append([Append(EVENTS, "busy", b"v") for _ in range(500)])
    await log.append([Append(EVENTS, f"k{n}", b"v") for n in range(50)])
    member = await log.group("g", [EVENTS])
    seen = set()
    for _ in range(24):
        seen |= {record.partition for record in await member.read(max_records=10, timeout=1)}
    assert len(seen) == 12


async def test_a_waiting_member_never_times_out(log, clock):
    waiting, other = [await log.group("g", [EVENTS]) for _ in range(2)]
    waiting.revoked()  # drops what the other member's join revoked
    reading = asyncio.create_task(waiting.read(max_records=1, timeout=30))
    await asyncio.sleep(0)
    await clock.sleep(1000)
    await other.read(max_records=1, timeout=0)
    assert len(await waiting.lag()) == len(await other.lag()) == 6
    await log.append([Append(EVENTS, f"k{n}", b"v") for n in range(50)])
    assert await reading
    assert waiting.revoked() == frozenset()


async def test_a_member_that_timed_out_joins_again(log, clock):
    silent, other = [await log.group("g", [EVENTS]) for _ in range(2)]
    silent.revoked()  # drops what the other member's join revoked
    owned = set(await silent.lag())
    await clock.sleep(61)
    await other.read(max_records=1, timeout=0)
    assert len(await other.lag()) == 12
    assert silent.revoked() == owned
    await silent.read(max_records=1, timeout=0)
    assert len(await silent.lag()) == len(await other.lag()) == 6
    assert len(other.revoked()) == 6


async def test_an_append_arrives_within_milliseconds(log):
    member = await log.group("g", [DEAD_LETTERS])
    waits = []
    for _ in range(50):
        reading = asyncio.create_task(member.read(max_records=10, timeout=5))
        await asyncio.sleep(0)
        before = time.perf_counter()
        await log.append([Append(DEAD_LETTERS, "k", b"v")])
        await reading
        waits.append(time.perf_counter() - before)
    assert sorted(waits)[25] < 0.25  # it takes half a millisecond; polling would take a whole interval


async def test_the_event_loop_runs_on_while_the_file_is_read(log):
    await log.append([Append(EVENTS, f"k{n}", b"x" * 1000) for n in range(5000)])
    member = await log.group("g", [EVENTS])
    reading = asyncio.create_task(member.read(max_records=5000, timeout=5))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 3
    assert len(await reading) == 5000
