"""How the contract suite reads a log: until enough records have come, or the engine's time limit is over."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing

from mesh.log.port import Append, Group, Log, Partition, Record


def appends(topic: str, count: int, *, keys: int = 7) -> list[Append]:
    """Returns `count` records to append, with numbered values and so many different keys."""
    return [Append(topic, f"place/repository-{n % keys}", f"value {n}".encode()) for n in range(count)]


def values(records: Sequence[Record]) -> list[bytes | None]:
    """Returns the value of each record."""
    return [record.value for record in records]


def finished(records: Sequence[Record]) -> dict[Partition, int]:
    """Returns the offsets to commit when all of `records` are finished."""
    ends: dict[Partition, int] = {}
    for record in records:
        ends[record.partition] = max(ends.get(record.partition, 0), record.offset + 1)
    return ends


class Reader:
    """A group member and the records it was given. It drops the records of revoked partitions, as a consumer must."""

    def __init__(self, member: Group, *, commits: bool = False) -> None:
        self.member = member
        self.commits = commits
        self.seen: list[Record] = []
        self.revoked: set[Partition] = set()

    @property
    def partitions(self) -> set[Partition]:
        """The partitions that it has records of."""
        return {record.partition for record in self.seen}

    async def step(self, timeout: float = 0.2) -> None:
        """Reads once, and commits when it is a reader that commits."""
        found = await self.member.read(max_records=100, timeout=timeout)
        revoked = self.member.revoked()
        self.revoked |= revoked
        self.seen = [
            record for record in self.seen if record.partition not in revoked or self.commits
        ] + list(found)
        if found and self.commits:
            await self.member.commit(finished(found))


async def read_until(enough: Callable[[], bool], *readers: Reader, within: float) -> None:
    """Lets all `readers` read concurrently until `enough` is true."""
    deadline = time.monotonic() + within
    while not enough():
        assert time.monotonic() < deadline, f"not enough within {within} s: {[r.seen[-3:] for r in readers]}"
        await asyncio.gather(*(reader.step() for reader in readers))


async def read_count(member: Group, count: int, *, within: float) -> list[Record]:
    """Returns the next `count` records, and asserts that there are no more of them."""
    reader = Reader(member)
    await read_until(lambda: len(reader.seen) >= count, reader, within=within)
    assert len(reader.seen) == count
    return reader.seen


async def is_quiet(member: Group, seconds: float = 1.0) -> bool:
    """Returns whether a member that has its partitions reads nothing for `seconds`."""
    return not await member.read(max_records=100, timeout=seconds)


async def follow_to_end(log: Log, topic: str, start: dict[int, int] | None = None) -> list[Record]:
    """Returns all records that a follower sees before the present end of the topic."""
    ends = await log.end(topic)
    seen: list[Record] = []
    async with aclosing(log.follow(topic, start=start)) as batches:
        async for batch in batches:
            seen += batch.records
            if all(batch.positions.get(number, 0) >= end for number, end in ends.items()):
                break
    return seen


def latest(records: Sequence[Record]) -> dict[str, bytes]:
    """Returns what a table over these records would hold."""
    found = {record.key: record.value for record in records}
    return {key: value for key, value in found.items() if value is not None}
