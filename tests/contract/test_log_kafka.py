"""Faults that only Kafka has: brokers that die or hang, members that die, foreign topics, aiokafka's own faults."""

import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from pathlib import Path

import pytest
import structlog
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from mesh.clock import SystemClock
from mesh.errors import LogError, LogUnavailable
from mesh.log.kafka import KafkaLog, open_log
from mesh.log.kafka import topics as kafka_topics
from mesh.log.kafka.settings import KafkaTimeouts
from mesh.log.port import Append, Partition
from schemas import topics
from tests.support import kafka_broker
from tests.support.kafka_engine import QUICK_TIMEOUTS
from tests.support.reading import Reader, appends, finished, read_count, read_until, values

pytestmark = [pytest.mark.real("kafka"), pytest.mark.xdist_group("kafka-that-is-killed")]

_SOON = 30.0  # seconds; it measures nothing
_MEMBER = Path(__file__).parent.parent / "support" / "kafka_member_process.py"

Opener = Callable[..., Awaitable[KafkaLog]]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kafka_broker.Broker]:
    """A broker that these tests may kill."""
    started = kafka_broker.start(tmp_path_factory.mktemp("own-kafka"))
    yield started
    started.stop()


@pytest.fixture
async def opened(broker: kafka_broker.Broker) -> AsyncIterator[Opener]:
    logs: list[KafkaLog] = []

    async def opening(timeouts: KafkaTimeouts = QUICK_TIMEOUTS) -> KafkaLog:
        logs.append(
            await open_log(broker.url, clock=SystemClock(), secrets=lambda _: None, timeouts=timeouts)
        )
        return logs[-1]

    yield opening
    for log in logs:
        await log.close()


def _with_timeouts(**seconds: float) -> KafkaTimeouts:
    return QUICK_TIMEOUTS.model_copy(update=seconds)


@pytest.fixture
async def admin(broker: kafka_broker.Broker) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await client.start()
    yield client
    await client.close()


async def append_until_acknowledged(log: KafkaLog, record: Append) -> None:
    """Appends again until it is acknowledged."""
    while True:
        try:
            await log.append([record])
        except LogUnavailable:
            await asyncio.sleep(0.1)
        else:
            return


async def read_once(reader: Reader) -> None:
    try:
        await reader.step()
    except LogUnavailable:
        await asyncio.sleep(0.1)


# --- brokers that die ---


async def test_a_killed_broker_loses_nothing_that_was_acknowledged(broker, opened, region, group_name):
    topic = topics.events(region)
    log = await opened(_with_timeouts(request=3.0))
    await log.ensure([topic])
    reader = Reader(await log.group(group_name, [topic]), commits=True)
    acknowledged: list[bytes] = []
    enough = asyncio.Event()

    async def write() -> None:
        while not enough.is_set():
            value = b"%d" % len(acknowledged)
            await append_until_acknowledged(log, Append(topic, f"k{len(acknowledged) % 7}", value))
            acknowledged.append(value)

    async def read() -> None:
        while not enough.is_set() or not set(acknowledged) <= set(values(reader.seen)):
            await read_once(reader)

    async def until(count: int) -> None:
        while len(acknowledged) < count:
            await asyncio.sleep(0.01)

    async with asyncio.timeout(2 * _SOON), asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        tasks.create_task(read())
        await until(50)
        broker.kill()
        await asyncio.sleep(1)
        await asyncio.to_thread(broker.start)
        await until(len(acknowledged) + 50)
        enough.set()
    assert set(acknowledged) <= set(values(reader.seen))


async def test_a_follower_continues_after_its_broker_was_killed(broker, opened, region):
    topic = topics.status(region)
    log = await opened(_with_timeouts(request=3.0))
    await log.ensure([topic])
    seen: list[bytes | None] = []
    async with asyncio.timeout(2 * _SOON), aclosing(log.follow(topic)) as batches:
        for value in (b"before", b"after"):
            await append_until_acknowledged(log, Append(topic, "k", value))
            while value not in seen:
                seen += values((await anext(batches)).records)
            if value == b"before":
                broker.kill()
                await asyncio.to_thread(broker.start)
    assert seen[0] == b"before"
    assert set(seen) == {b"before", b"after"}


@pytest.mark.parametrize("how", ["dies", "hangs"])
async def test_without_a_broker_every_call_ends_and_afterwards_all_works(
    broker, opened, region, group_name, how
):
    topic = topics.events(region)
    log = await opened(_with_timeouts(request=1.0))
    await log.ensure([topic])
    member = await log.group(group_name, [topic])
    await log.append([Append(topic, "k", b"before")])
    seen = await read_count(member, 1, within=_SOON)
    broker.kill() if how == "dies" else broker.suspend()
    calls = {
        "append": lambda: log.append([Append(topic, "k", b"perhaps")]),
        "append again": lambda: log.append([Append(topic, "k", b"perhaps")]),
        "and again": lambda: log.append([Append(topic, "k", b"perhaps")]),
        "commit": lambda: member.commit(finished(seen)),
        "lag": member.lag,
        "end": lambda: log.end(topic),
        "missing": lambda: log.missing([topic]),
    }
    for name, call in calls.items():
        began = time.monotonic()
        with pytest.raises(LogUnavailable):
            await call()
        assert time.monotonic() - began < 5, name
    await asyncio.to_thread(broker.start if how == "dies" else broker.resume)
    reader = Reader(member, commits=True)
    async with asyncio.timeout(_SOON):
        await append_until_acknowledged(log, Append(topic, "k", b"surely"))
        while b"surely" not in values(reader.seen):
            await read_once(reader)
    assert (await log.end(topic)).keys() == set(range(12))


async def test_a_cancelled_start_leaves_no_connection_open(kafka_bootstrap):
    """Wherever it is cancelled: the garbage collector would report an open one as an error of this test."""
    for step in range(120):
        opening = asyncio.create_task(
            open_log(
                f"kafka://{kafka_bootstrap}",
                clock=SystemClock(),
                secrets=lambda _: None,
                timeouts=QUICK_TIMEOUTS,
            )
        )
        await asyncio.sleep(step * 0.0001)
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await (await opening).close()
        assert opening.done()
        gc.collect()


async def test_a_wrong_address_is_one_line():
    port = kafka_broker.free_port()
    with pytest.raises(LogUnavailable) as refusal:
        await open_log(f"kafka://127.0.0.1:{port}", clock=SystemClock(), secrets=lambda _: None)
    assert f"127.0.0.1:{port}" in str(refusal.value)
    assert "\n" not in str(refusal.value)


# --- members that die ---


async def test_a_killed_process_hands_its_partitions_over(broker, opened, region, group_name):
    topic = topics.events(region)
    log = await opened()
    await log.ensure([topic])
    await log.append(appends(topic, 100, keys=100))
    process = subprocess.Popen(
        [sys.executable, _MEMBER, broker.url, topic, group_name], stdout=subprocess.PIPE, text=True
    )
    try:
        assert await asyncio.to_thread(process.stdout.readline) == "12\n"
        survivor = Reader(await log.group(group_name, [topic]))
        await read_until(lambda: len(survivor.partitions) == 6, survivor, within=_SOON)
    finally:
        process.kill()
        process.communicate()
    await read_until(lambda: len(survivor.partitions) == 12, survivor, within=_SOON)
    assert len(set(values(survivor.seen))) == 100


# --- topics ---


async def test_topics_are_created_with_their_settings(opened, admin, region):
    log = await opened()
    wanted = topics.all_topics([region])[2:]
    await log.ensure(wanted)
    found = await kafka_topics.settings_of(admin, wanted)
    for name in wanted:
        settings = topics.settings(name)
        assert found[name]["cleanup.policy"] == settings.cleanup
        assert found[name]["max.message.bytes"] == "1048588"
        assert found[name]["message.timestamp.type"] == "LogAppendTime"
        if settings.cleanup is topics.Cleanup.COMPACT:
            assert found[name]["delete.retention.ms"] == str(settings.tombstone_ms)
            assert found[name]["min.compaction.lag.ms"] == "3600000"
        else:
            assert found[name]["retention.ms"] == str(settings.retention_ms)
    partitions = await kafka_topics.partitions(admin)
    assert {name: len(partitions[name]) for name in wanted} == {
        name: topics.settings(name).partitions for name in wanted
    }


async def test_topics_that_would_lose_records_are_refused(opened, admin, region):
    log = await opened()
    tags = topics.tags(region)
    await admin.create_topics(
        [
            NewTopic(tags, 12, 1, topic_configs={"cleanup.policy": "delete"}),
            NewTopic(topics.STATE, 2, 1, topic_configs={"cleanup.policy": "compact"}),
        ]
    )
    with pytest.raises(LogError, match=r"cleanup\.policy=delete"):
        await log.ensure([tags])
    with pytest.raises(LogError, match="2 partitions"):
        await log.ensure([topics.STATE])


async def test_a_group_whose_records_are_truncated_reports_it_and_reads_on(opened, admin, region, group_name):
    topic = topics.dead_letters(region)
    log = await opened()
    await log.ensure([topic])
    await log.append(appends(topic, 10))
    member = await log.group(group_name, [topic])
    await read_count(member, 10, within=_SOON)
    await member.commit({Partition(topic, 0): 2})
    await member.close()
    await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(6)})
    with structlog.testing.capture_logs() as lines:
        member = await log.group(group_name, [topic])
        seen = await read_count(member, 4, within=_SOON)
    assert [record.offset for record in seen] == [6, 7, 8, 9]
    assert [dict(member.truncated()), dict(member.truncated())] == [{Partition(topic, 0): 2}, {}]
    alarms = [line for line in lines if line["action"] == "log_truncated"]
    assert [(line["log_level"], line["read_up_to"]) for line in alarms] == [("error", 2)]


async def test_what_retention_deletes_before_a_group_reads_it_is_counted(opened, admin, region, group_name):
    topic = topics.dead_letters(region)
    log = await opened()
    await log.ensure([topic])
    await log.append(appends(topic, 6))
    assert await log.expiring(group_name, topic) is None  # a group that was never there
    member = await log.group(group_name, [topic])
    await read_count(member, 6, within=_SOON)
    await member.commit({Partition(topic, 0): 2})
    await member.close()
    assert await log.expiring(group_name, topic) is None
    configs = {"retention.ms": "4000", "segment.ms": "3600000"}
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])
    await asyncio.sleep(2.1)
    await log.append(appends(topic, 3))
    found = await read_until_not_none(lambda: log.expiring(group_name, topic))
    assert (found.records, found.kept_for.total_seconds()) == (4, 4.0)
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "-1"})])
    async with asyncio.timeout(_SOON):
        while await log.expiring(group_name, topic) is not None:
            await asyncio.sleep(0.1)


async def read_until_not_none(read):
    async with asyncio.timeout(_SOON):
        while (found := await read()) is None:
            await asyncio.sleep(0.1)
    return found


# --- aiokafka's own faults ---


async def test_a_producer_out_of_sequence_is_replaced(opened, region):
    topic = topics.dead_letters(region)
    log = await opened()
    await log.ensure([topic])
    await log.append([Append(topic, "k", b"1")])
    producer = await log._appender._producer.get()
    producer._txn_manager.increment_sequence_number(TopicPartition(topic, 0), 3)  # as after a refused batch
    with pytest.raises(LogUnavailable):
        await log.append([Append(topic, "k", b"2")])
    await log.append([Append(topic, "k", b"3")])
    assert await log._appender._producer.get() is not producer


@pytest.mark.parametrize("fault", ["fetching stops", "coordination stops"])
async def test_a_consumer_that_hangs_is_replaced(opened, region, group_name, fault):
    topic = topics.events(region)
    log = await opened(_with_timeouts(stall=1.5, session=6.0))
    await log.ensure([topic])
    member = await log.group(group_name, [topic])
    await log.append([Append(topic, "k", b"1")])
    seen = await read_count(member, 1, within=_SOON)
    consumer = member._member._consumer
    if fault == "fetching stops":
        consumer._fetcher._fetch_task.cancel()
        await asyncio.sleep(0.5)  # the fetch in progress ends
    else:  # the broker gives the partitions to nobody, as there is no heartbeat
        consumer._coordinator._coordination_task.cancel()
        consumer._coordinator._heartbeat_task.cancel()
        with suppress(asyncio.CancelledError):
            await consumer._coordinator._heartbeat_task
        await asyncio.sleep(7)
        await member.commit(finished(seen))  # refused without an error
    await log.append([Append(topic, "k", b"2")])
    reader = Reader(member)
    async with asyncio.timeout(_SOON):
        while b"2" not in values(reader.seen) or member._member._consumer is consumer:
            await read_once(reader)
    await member.commit(finished(reader.seen))
    assert sum((await member.lag()).values()) == 0
