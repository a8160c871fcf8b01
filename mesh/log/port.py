"""The log port: what every other package sees of the log. Only composition roots know which engine runs.

Four operations: `append` is durable when it returns; a `Group` reads a topic together with other processes and commits
what is finished; `follow` reads a topic from its start, for tables; `end` returns where a topic ends now.

Both engines keep these promises, and one contract suite (`tests/contract`) checks them:

- The records of a key are in one partition, in the order of their appends. Offsets grow; compaction leaves holes.
- An append that raised `LogUnavailable` may still be written: records carry ids, and readers expect repeats.
- The members of a group share the partitions. What was delivered and not committed is delivered again after a crash,
  to the member that owns the partition then. A group that never committed starts at the oldest record.
- A compacted topic keeps the last record of each key. `value=None` is a tombstone, kept long enough for readers to see.
- Every call ends: with its result, with `LogUnavailable` after the engine's time-out, or by cancellation.

Every method may raise `LogUnavailable` (trying again may help) or `LogError` (it cannot, for example because Kafka
denies access). Their docstrings list only what they raise beyond that.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol


class Partition(NamedTuple):
    """A partition of a topic, by its number from 0."""

    topic: str
    number: int


class Append(NamedTuple):
    """A record to write; `value=None` is a tombstone."""

    topic: str
    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Record:
    """A record as read."""

    partition: Partition
    offset: int
    key: str
    value: bytes | None
    written_at: datetime

    @property
    def position(self) -> str:
        """Returns where the record is, for people: `topic[partition]@offset`."""
        return f"{self.partition.topic}[{self.partition.number}]@{self.offset}"


@dataclass(frozen=True, slots=True)
class Batch:
    """What `Log.follow` read: records in the order of their offsets in each partition, and the new positions.

    `positions` maps partition numbers to the offset up to which every record that compaction left was delivered. It
    moves past holes, so it reaches every offset that `Log.end` ever returned, also where no record exists any more.
    """

    records: Sequence[Record]
    positions: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Expiring:
    """Records that retention deletes before a group has read them, if it goes on as it does.

    Attributes:
        records: How many are unfinished and older than half of the retention.
        kept_for: The topic's retention.
    """

    records: int
    kept_for: timedelta


class Group(Protocol):
    """One member of a group, and its share of the partitions of some topics.

    A rebalance may assign or revoke partitions between any two calls of `read`. A record of a partition that was
    revoked and assigned again is delivered again from the last commit.
    """

    async def read(self, *, max_records: int, timeout: float) -> Sequence[Record]:
        """Reads from the partitions that are not paused.

        Call it often, even when everything is paused: it also keeps the membership alive.

        Args:
            max_records: The most records to return.
            timeout: How long to wait for the first record, in seconds.

        Returns:
            Records in the order of their offsets in each partition; none when the time is over.
        """
        ...

    def revoked(self) -> frozenset[Partition]:
        """Returns the partitions that were revoked since the last call of `revoked`.

        Their unfinished records belong to another member now; the caller has to drop them.
        """
        ...

    def truncated(self) -> Mapping[Partition, int]:
        """Returns the partitions whose unfinished records were deleted by retention since the last call.

        Returns:
            The offset up to which the group had read, by partition. It reads on from the oldest record left.
        """
        ...

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Stops the delivery of these partitions until `resume`; the membership survives, through rebalances too."""
        ...

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Ends a `pause`."""
        ...

    async def commit(self, finished: Mapping[Partition, int]) -> None:
        """Marks everything before these offsets as finished.

        Partitions that this member does not own any more are ignored: their new owner reads them again.
        """
        ...

    async def lag(self) -> Mapping[Partition, int]:
        """Returns the number of records between the last commit and the end, for each owned partition."""
        ...

    async def close(self) -> None:
        """Leaves the group, so that the other members take over at once. Commits nothing."""
        ...


class RecordWriter(Protocol):
    """What takes records: the log, or a spool in front of it."""

    async def append(self, records: Sequence[Append], /) -> object:
        """Writes all records durably, as `Log.append` does."""
        ...


class Log(Protocol):
    """A connection to the log, for one event loop."""

    async def append(self, records: Sequence[Append], *, then: Sequence[Append] = ()) -> Sequence[int]:
        """Writes all records durably. This is not a transaction: when it raises, any of them may be written.

        Args:
            records: Where any of them may land without the others.
            then: What follows from `records`: none of it is written before all of them are durable.

        Returns:
            The offsets of the records, in their order, and then of those in `then`.

        Raises:
            LogError: A record is too large, its key is not valid text, or its topic is unknown.
        """
        ...

    async def group(self, name: str, topics: Sequence[str]) -> Group:
        """Joins a group as a new member.

        Raises:
            LogError: One of `topics` does not exist.
        """
        ...

    def follow(self, topic: str, *, start: Mapping[int, int] | None = None) -> AsyncGenerator[Batch, None]:
        """Yields every record of a topic, then new ones as they are written; never ends by itself.

        The first batch comes even when the topic is empty, and a batch may have positions only. Leave the generator
        with `contextlib.aclosing`.

        Args:
            topic: The topic, which must exist.
            start: The positions of an earlier batch, to continue after it; the oldest records by default.

        Raises:
            LogError: The topic does not exist.
        """
        ...

    async def end(self, topic: str) -> Mapping[int, int]:
        """Returns the offset that the next record of each partition gets at the earliest, by partition number.

        Raises:
            LogError: The topic does not exist.
        """
        ...

    async def ensure(self, topics: Sequence[str]) -> Sequence[str]:
        """Creates missing topics with the settings of `schemas.topics`, and returns those that it created.

        Raises:
            LogError: A name is unknown, or an existing topic has a clean-up policy that would lose records.
        """
        ...

    async def missing(self, topics: Sequence[str]) -> Sequence[str]:
        """Returns those of `topics` that do not exist.

        Raises:
            LogError: A name is unknown.
        """
        ...

    async def expiring(self, group: str, topic: str) -> Expiring | None:
        """Returns what a group has not finished of a topic though it is older than half of the topic's retention.

        None when there is nothing of the kind, which is always so of an engine that keeps unfinished records. The
        group need not have members now.

        Raises:
            LogError: The topic does not exist.
        """
        ...

    async def close(self) -> None:
        """Writes what is waiting, leaves all groups and releases connections and files."""
        ...
