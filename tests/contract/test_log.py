"""What every engine promises: see `mesh/log/port.py`. Time-outs are the engine's limit, never a measurement."""

import asyncio
from contextlib import aclosing

import pytest

from mesh.errors import LogError, LogUnavailable
from mesh.log.port import Append, Partition
from schemas import topics
from schemas.codec import MAX_RECORD
from schemas.names import Region
from tests.support.reading import (
    Reader,
    appends,
    finished,
    follow_to_end,
    is_quiet,
    latest,
    read_count,
    read_until,
    values,
)

# --- append ---


async def test_what_was_acknowledged_survives_a_crash(engine, region):
    topic = topics.events(region)
    log = await engine.open()
    await log.ensure([topic])
    for record in appends(topic, 20):
        await log.append([record])
    await engine.crash(log)
    found = await follow_to_end(await engine.open(), topic)
    assert sorted(values(found)) == sorted(record.value for record in appends(topic, 20))


async def test_offsets_are_answered_in_the_order_of_the_records(log, region):
    topic = topics.events(region)
    await log.ensure([topic])
    records = appends(topic, 50)
    offsets = await log.append(records)
    found = {(record.key, record.offset): record.value for record in await follow_to_end(log, topic)}
    assert [found[record.key, at] for record, at in zip(records, offsets, strict=True)] == [
        r.value for r in records
    ]


async def test_a_key_stays_in_one_partition_in_the_order_of_its_appends(log, region):
    topic = topics.events(region)
    await log.ensure([topic])

    async def push(key: str) -> None:
        for number in range(15):
            await log.append([Append(topic, key, b"%d" % number)])

    keys = [f"game/app-{n}" for n in range(8)]
    await asyncio.gather(*map(push, keys))
    found = await follow_to_end(log, topic)
    for key in keys:
        mine = [record for record in found if record.key == key]
        assert values(mine) == [b"%d" % number for number in range(15)]
        assert len({record.partition for record in mine}) == 1
    for partition in {record.partition for record in found}:
        offsets = [record.offset for record in found if record.partition == partition]
        assert offsets == sorted(set(offsets))


async def test_many_keys_use_many_partitions(log, region):
    topic = topics.events(region)
    await log.ensure([topic])
    await log.append(appends(topic, 200, keys=200))
    assert len({record.partition for record in await follow_to_end(log, topic)}) > 6


async def test_one_append_may_write_to_several_topics(log, region):
    both = [topics.events(region), topics.completions(region)]
    await log.ensure(both)
    await log.append([Append(topic, "k", topic.encode()) for topic in both])
    for topic in both:
        assert values(await follow_to_end(log, topic)) == [topic.encode()]


async def test_what_follows_is_written_after_what_it_follows_from_or_not_at_all(log, region):
    first, second = topics.completions(region), topics.status(region)
    await log.ensure([first, second])
    offsets = await log.append([Append(first, "k", b"1")], then=[Append(second, "k", b"2")])
    assert list(offsets) == [0, 0]
    assert values(await follow_to_end(log, second)) == [b"2"]
    with pytest.raises(LogError):
        await log.append([Append(first, "k", b"x" * (MAX_RECORD + 1))], then=[Append(second, "k", b"4")])
    assert values(await follow_to_end(log, first)) == [b"1"]
    assert values(await follow_to_end(log, second)) == [b"2"]


async def test_records_come_back_as_they_were(log, region):
    topic = topics.dead_letters(region)
    await log.ensure([topic])
    sent = [("key", b""), ("schlüssel/鍵", b"\x00\xff"), ("big", b"x" * (MAX_RECORD - 100))]
    await log.append([Append(topic, key, value) for key, value in sent])
    found = await follow_to_end(log, topic)
    assert [(record.key, record.value) for record in found] == sent
    assert found[0].position == f"{topic}[0]@{found[0].offset}"
    assert found[0].written_at.tzinfo is not None


@pytest.mark.parametrize("topic", ["mesh.x.nonsense", "nonsense", ""])
async def test_an_unknown_topic_is_refused(log, topic):
    with pytest.raises(LogError):
        await log.append([Append(topic, "k", b"v")])
    with pytest.raises(LogError):
        await log.ensure([topic])
    with pytest.raises(LogError):
        await log.missing([topic])


async def test_an_oversized_record_is_refused_and_harms_nothing(log, region):
    topic = topics.dead_letters(region)
    await log.ensure([topic])
    with pytest.raises(LogError) as refusal:
        await log.append([Append(topic, "k", b"x" * (MAX_RECORD + 1))])
    assert not refusal.value.retryable
    await log.append([Append(topic, "k", b"v")])
    assert values(await follow_to_end(log, topic)) == [b"v"]


async def test_an_append_of_nothing_is_nothing(log):
    assert list(await log.append([])) == []


async def test_a_cancelled_append_leaves_the_handle_usable(log, region):
    topic = topics.events(region)
    await log.ensure([topic])
    for wait in (0.0, 0.0001, 0.001, 0.005):
        appending = asyncio.create_task(log.append([Append(topic, "k", b"perhaps")]))
        await asyncio.sleep(wait)
        appending.cancel()
        await asyncio.wait([appending])
    await log.append([Append(topic, "k", b"surely")])
    assert values(await follow_to_end(log, topic))[-1] == b"surely"


# --- topics ---


async def test_ensure_creates_what_is_missing_and_returns_it(log, region):
    wanted = [topics.events(region), topics.tags(region)]
    assert sorted(await log.missing(wanted)) == sorted(wanted)
    assert list(await log.ensure(wanted[:1])) == wanted[:1]
    assert list(await log.missing(wanted)) == wanted[1:]
    assert list(await log.ensure(wanted)) == wanted[1:]
    assert list(await log.ensure(wanted)) == []
    assert list(await log.missing(wanted)) == []


async def test_topics_have_the_partitions_of_the_table(log, region):
    wanted = [topics.events(region), topics.completions(region), topics.status(region)]
    await log.ensure(wanted)
    for topic in wanted:
        assert set(await log.end(topic)) == set(range(topics.settings(topic).partitions))


async def test_two_may_ensure_at_once(log, region):
    topic = topics.events(region)
    made = await asyncio.gather(*(log.ensure([topic]) for _ in range(4)))
    assert [topic] in [list(one) for one in made]
    assert list(await log.missing([topic])) == []


async def test_topics_are_created_while_others_are_created_and_written(log, region):
    """As when agents of several regions start while registries push: none sees a half-created topic of another."""
    makers = [[Region(f"{region}-{maker}-{number}") for number in range(5)] for maker in range(4)]

    async def make_and_write(regions: list[Region]) -> None:
        for of in regions:
            await log.ensure([topics.status(of)])
            await log.append([Append(topics.status(of), "key", b"value")])

    await asyncio.gather(*(make_and_write(regions) for regions in makers))
    for of in [of for regions in makers for of in regions]:
        assert values(await follow_to_end(log, topics.status(of))) == [b"value"]


async def test_reading_what_does_not_exist_is_an_error(log, region, group_name):
    topic = topics.events(region)
    with pytest.raises(LogError):
        await log.group(group_name, [topic])
    with pytest.raises(LogError):
        await log.end(topic)
    with pytest.raises(LogError):
        await anext(log.follow(topic))


async def test_end_is_where_the_next_record_goes(log, region):
    topic = topics.dead_letters(region)
    await log.ensure([topic])
    assert await log.end(topic) == {0: 0}
    offsets = await log.append(appends(topic, 5))
    assert (await log.end(topic))[0] == offsets[-1] + 1
    (after,) = await log.append(appends(topic, 1))
    assert after == offsets[-1] + 1


# --- groups ---


async def test_a_group_sees_every_record_once_when_it_commits(engine, log, region, group_name):
    topic = topics.events(region)
    await log.ensure([topic])
    await log.append(appends(topic, 60))
    first = await log.group(group_name, [topic])
    seen = await read_count(first, 60, within=engine.time_limit)
    assert sorted(values(seen)) == sorted(record.value for record in appends(topic, 60))
    await first.commit(finished(seen))
    await first.close()
    await log.append([Append(topic, "new", b"new")])
    second = await log.group(group_name, [topic])
    assert values(await read_count(second, 1, within=engine.time_limit)) == [b"new"]
    assert await is_quiet(second)
    await second.close()


async def test_groups_do_not_disturb_each_other(engine, log, region, group_name):
    topic = topics.events(region)
    await log.ensure([topic])
    await log.append(appends(topic, 10))
    for name in (group_name, f"{group_name}-other"):
        member = await log.group(name, [topic])
        seen = await read_count(member, 10, within=engine.time_limit)
        await member.commit(finished(seen))
        await member.close()


async def test_a_group_reads_several_topics(engine, log, region, group_name):
    both = [topics.events(region), topics.completions(region)]
    await log.ensure(both)
    await log.append([record for topic in both for record in appends(topic, 10)])
    member = await log.group(group_name, both)
    seen = await read_count(member, 20, within=engine.time_limit)
    assert {record.partition.topic for record in seen} == set(both)
    await member.close()


async def test_a_read_returns_no_more_than_was_asked_for(engine, log, region, group_name):
    topic = topics.events(region)
    await log.ensure([topic])
    await log.append(appends(topic, 30))
    member = await log.group(group_name, [topic])
    seen = []
    while len(seen) < 30:
        found = await member.read(max_records=7, timeout=engine.time_limit)
        assert 0 < len(found) <= 7
        seen += found
    assert len({(record.partition, record.offset) for record in seen}) == 30
    await member.close()


async def test_a_waiting_read_returns_at_an_append(engine, log, region, group_name):
    topic = topics.events(region)
    await log.ensure([topic])
    member = await log.group(group_name, [topic])
    reading = asyncio.create_task(member.read(max_records=1, timeout=engine.time_limit))
    await asyncio.sleep(0.1)
    await log.append([Append(topic, "k", b"v")])
    assert values(await reading) == [b"v"]
    await member.close()


async def test_what_was_not_committed_is_delivered_again_after_a_crash(engine, region, group_name):
    topic = topics.events(region)
    log = await engine.open()
    await log.ensure([topic])
    await log.append(appends(topic, 20))
    member = await log.group(group_name, [topic])
    before = await read_count(member, 20, within=engine.time_limit)
    await engine.crash(log)
    member = await (await engine.open()).group(group_name, [topic])
    after = await read_count(member, 20, within=engine.time_limit)
    assert sorted(values(after)) == sorted(values(before))
    await member.close()


async def test_only_the_committed_prefix_is_finished(engine, region, group_name):
    topic = topics.dead_letters(region)
    log = await engine.open()
    await log.ensure([topic])
    await log.append(appends(topic, 10))
    member = await log.group(group_name, [topic])
    seen = await read_count(member, 10, within=engine.time_limit)
    await member.commit({seen[0].partition: seen[4].offset})
    await engine.crash(log)
    member = await (await engine.open()).group(group_name, [topic])
    assert values(await read_count(member, 6, within=engine.time_limit)) == values(seen)[4:]
    assert await is_quiet(member)
    await member.close()


async def test_a_commit_leaves_other_partitions_as_they_were(engine, log, region, group_name):
    topic = topics.events(region)
    await log.ensure([topic])
    await log.append(appends(topic, 40, keys=40))
    member = await log.group(group_name, [topic])
    seen = await read_count(member, 40, within=engine.time_limit)
    done = seen[0].partition
    await member.commit({done: finished(seen)[done]})
    await member.close()
    member = await log.group(group_name, [topic])
    left = [record for record in seen if record.partition != done]
    again = await read_count(member, len(left), within=engine.time_limit)
    assert sorted(values(again)) == sorted(values(left))
    await member.close()


async def test_members_share_the_partitions(engine, log, region, group_name):
    topic = topics.events(region)
    await log.ensure([topic])
    readers = [Reader(await log.group(group_name, [topic]), commits=True) for _ in range(2)]
    sent = 0

    async def both_have_read() -> bool:
        nonlocal sent
        sent += 40
        await log.append(appends(topic, 40, keys=40))
        await asyncio.gather(*(reader.step() for reader in readers))
        return all(reader.partitions for reader in readers)

    async with asyncio.timeout(engine.time_limit):
        while not await both_have_read():
            pass
    positions = lambda: {(r.partition, r.offset) for reader in readers for r in reader.seen}  # noqa: E731
    await read_until(lambda: len(positions()) == sent, *readers, within=engine.time_limit)
    for reader in readers:
        await reader.member.close()


@pytest.mark.parametrize("how", ["leaves", "dies"])
async def test_a_member_takes_over_from_one_that_has_left_or_died(engine, region, group_name, how):
    topic = topics.events(region)
    first_log, second_log = await engine.open(), await engine.open()
    await first_log.ensure([topic])
    first, second = [Reader(await log.group(group_name, [topic])) for log in (first_log, second_log)]
    # Until each has some: the shares then are 6 and 6.
    await second_log.append(appends(topic, 100, keys=100))
    await read_until(
        lambda: len(first.partitions) == 6 and len(second.partitions) == 6,
        first,
        second,
        within=engine.time_limit,
    )
    theirs = [record for record in first.seen if record.partition not in second.partitions]
    if how == "leaves":
        await first.member.close()
    else:
        await engine.die(first_log, first.member)
    await read_until(
        lambda: {record.value for record in theirs} <= {record.value for record in second.seen},
        second,
        within=engine.time_limit,
    )
    assert len(second.partitions) == 12
    await second.member.close()


async def test_revoked_returns_the_partitions_that_another_member_took(engine, region, group_name):
    topic = topics.events(region)
    first_log, second_log = await engine.open(), await engine.open()
    await first_log.ensure([topic])
    await first_log.append(appends(topic, 100, keys=100))
    first = Reader(await first_log.group(group_name, [topic]))
    await read_until(lambda: len(first.partitions) == 12, first, within=engine.time_limit)
    assert not first.revoked
    second = Reader(await second_log.group(group_name, [topic]))
    await read_until(
        lambda: len(first.partitions) == 6 and len(second.partitions) == 6,
        first,
        second,
        within=engine.time_limit,
    )
    assert second.partitions <= first.revoked
    assert first.partitions.isdisjoint(second.partitions)
    assert first.member.revoked() == frozenset()
    await first.member.close()
    await second.member.close()


async def test_a_commit_for_a_revoked_partition_is_ignored(engine, region, group_name):
    topic = topics.events(region)
    first_log, second_log = await engine.open(), await engine.open()
    await first_log.ensure([topic])
    await first_log.append(appends(topic, 100, keys=100))
    first = Reader(await first_log.group(group_name, [topic]))
    await read_until(lambda: len(first.partitions) == 12, first, within=engine.time_limit)
    everything = list(first.seen)
    second = Reader(await second_log.group(group_name, [topic]))
    await read_until(
        lambda: len(first.partitions) == 6 and len(second.partitions) == 6,
        first,
        second,
        within=engine.time_limit,
    )
    revoked = [record for record in everything if record.partition in second.partitions]
    await first.member.commit(finished(revoked))
    await second.member.close()
    first.seen.clear()
    await read_until(
        lambda: {record.value for record in revoked} <= {record.value for record in first.seen},
        first,
        within=engine.time_limit,
    )
    await first.member.close()


async def test_paused_partitions_deliver_nothing_until_resumed(engine, log, region, group_name):
    topic = topics.dead_letters(region)
    await log.ensure([topic])
    await log.append(appends(topic, 5))
    member = await log.group(group_name, [topic])
    await read_count(member, 5, within=engine.time_limit)
    member.pause([Partition(topic, 0)])
    await log.append([Append(topic, "k", b"later")])
    assert await is_quiet(member)
    member.resume([Partition(topic, 0)])
    assert values(await read_count(member, 1, within=engine.time_limit)) == [b"later"]
    await member.close()


async def test_pause_keeps_the_membership_through_a_rebalance(engine, region, group_name):
    topic = topics.events(region)
    first_log, second_log = await engine.open(), await engine.open()
    await first_log.ensure([topic])
    await first_log.append(appends(topic, 100, keys=100))
    first = Reader(await first_log.group(group_name, [topic]))
    await read_until(lambda: len(first.partitions) == 12, first, within=engine.time_limit)
    every = [Partition(topic, number) for number in range(12)]
    first.member.pause(every)
    first.seen.clear()
    second = Reader(await second_log.group(group_name, [topic]))
    await read_until(lambda: len(second.partitions) == 6, first, second, within=engine.time_limit)
    assert first.seen == []
    await second.member.close()
    for _ in range(5):
        await first.step()
    assert first.seen == []
    first.member.resume(every)
    await read_until(lambda: second.partitions <= first.partitions, first, within=engine.time_limit)
    await first.member.close()


async def test_a_cancelled_read_loses_nothing(engine, log, region, group_name):
    topic = topics.events(region)
    await log.ensure([topic])
    member = await log.group(group_name, [topic])
    seen = []
    sent = [Append(topic, f"k{n}", b"%d" % n) for n in range(30)]
    for number, record in enumerate(sent):
        reading = asyncio.create_task(member.read(max_records=10, timeout=5))
        await asyncio.sleep(0)
        await log.append([record])
        await asyncio.sleep(0.0005 * (number % 5))
        reading.cancel()
        await asyncio.wait([reading])
        if not reading.cancelled():
            seen += reading.result()
    reader = Reader(member)
    reader.seen = seen
    await read_until(lambda: len(reader.seen) >= 30, reader, within=engine.time_limit)
    assert sorted(values(reader.seen)) == sorted(record.value for record in sent)
    await member.close()


async def test_lag_counts_from_the_last_commit_to_the_end(engine, log, region, group_name):
    topic = topics.dead_letters(region)
    partition = Partition(topic, 0)
    await log.ensure([topic])
    await log.append(appends(topic, 10))
    member = await log.group(group_name, [topic])
    seen = await read_count(member, 10, within=engine.time_limit)
    assert await member.lag() == {partition: 10}
    await member.commit({partition: seen[3].offset})
    assert await member.lag() == {partition: 7}
    await member.commit(finished(seen))
    assert await member.lag() == {partition: 0}
    await member.close()


# --- follow, and compacted topics ---


async def test_a_compacted_topic_keeps_the_last_value_of_each_key(engine, region):
    topic = topics.tags(region)
    log = await engine.open()
    await log.ensure([topic])
    for turn in range(4):
        await log.append([Append(topic, f"k{n}", b"%d" % turn) for n in range(10)])
    await log.append([Append(topic, "k0", None), Append(topic, "k1", None), Append(topic, "k1", b"back")])
    await engine.crash(log)
    found = await follow_to_end(await engine.open(), topic)
    assert latest(found) == {"k1": b"back"} | {f"k{n}": b"3" for n in range(2, 10)}
    assert "k0" in {record.key for record in found if record.value is None}


async def test_follow_continues_with_new_records(engine, log, region):
    topic = topics.status(region)
    await log.ensure([topic])
    await log.append([Append(topic, "a", b"1")])
    async with asyncio.timeout(engine.time_limit), aclosing(log.follow(topic)) as batches:
        seen = []
        while not seen:
            seen += (await anext(batches)).records
        for number in range(2, 6):
            await log.append([Append(topic, "a", b"%d" % number)])
            while seen[-1].value != b"%d" % number:
                seen += (await anext(batches)).records
    assert values(seen) == [b"1", b"2", b"3", b"4", b"5"]


async def test_follow_reports_its_position_on_an_empty_topic(engine, log, region):
    topic = topics.tags(region)
    await log.ensure([topic])
    async with asyncio.timeout(engine.time_limit):
        assert await follow_to_end(log, topic) == []


async def test_follow_starts_where_another_stopped(log, region):
    topic = topics.tags(region)
    await log.ensure([topic])
    await log.append([Append(topic, f"k{n}", b"old") for n in range(20)])
    stopped = dict(await log.end(topic))
    await log.append([Append(topic, f"k{n}", b"new") for n in range(5)])
    found = await follow_to_end(log, topic, start=stopped)
    assert sorted(values(found)) == [b"new"] * 5


async def test_followers_and_groups_may_read_the_same_topic(engine, log, region, group_name):
    topic = topics.status(region)
    await log.ensure([topic])
    await log.append([Append(topic, "a", b"1")])
    member = await log.group(group_name, [topic])
    assert values(await read_count(member, 1, within=engine.time_limit)) == [b"1"]
    assert values(await follow_to_end(log, topic)) == [b"1"]
    await member.close()


# --- the handle ---


async def test_a_closed_handle_raises(engine, region, group_name):
    topic = topics.events(region)
    log = await engine.open()
    await log.ensure([topic])
    member = await log.group(group_name, [topic])
    reading = asyncio.create_task(member.read(max_records=1, timeout=60))
    following = asyncio.create_task(follow_past_end(log, topic))
    await asyncio.sleep(0.1)
    await log.close()
    await log.close()
    for waiting in (reading, following):
        with pytest.raises(LogUnavailable):
            await asyncio.wait_for(waiting, engine.time_limit)
    with pytest.raises(LogUnavailable):
        await log.append([Append(topic, "k", b"v")])
    with pytest.raises(LogUnavailable):
        await log.end(topic)


async def follow_past_end(log, topic):
    async with aclosing(log.follow(topic)) as batches:
        async for _ in batches:
            pass
