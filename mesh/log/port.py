"""The log as everything above sees it. Which engine runs, only a composition root knows.

Four verbs: `append` is durable when it returns; a `Group` reads with others and commits what it has finished;
`follow` reads a topic from its start, for tables; `end` tells where a topic ends now.

Promises of both engines, held by one contract suite (`tests/contract`):

- A key's records are in one partition, in the order of their appends; offsets grow, with holes from compaction.
- An append that raised `LogUnavailable` may still have landed: records carry ids, and readers expect repeats.
- A group's members share the partitions. What was delivered and not committed is delivered again after a crash, to
  whoever owns the partition then. A group that never committed starts at the oldest record.
- In a compacted topic the last record of each key stays; `value=None` is a tombstone, kept long enough to be seen.
- Every call ends: with its result, with `LogUnavailable` after the engine's time-out, or by cancellation.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol


class Partition(NamedTuple):
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
        """For people: `topic[partition]@offset`."""
        return f"{self.partition.topic}[{self.partition.number}]@{self.offset}"


@dataclass(frozen=True, slots=True)
class Batch:
    """What `follow` read: records in offset order per partition, and where it stands now.

    `positions` has, by partition number, the offset up to which everything that compaction left was delivered. It
    passes holes, so it reaches every offset that `end` ever answered, also where no record is visible any more.
    """

    records: Sequence[Record]
    positions: Mapping[int, int]


class Group(Protocol):
    """One member's share of some topics.

    Partitions may come and go between any two calls of `read`. A record of a partition that was lost and came back is
    delivered again from the last commit; `revoked` tells which ones to forget.
    """

    async def read(self, *, max_records: int, timeout: float) -> Sequence[Record]:
        """Up to `max_records` of unpaused partitions; empty after `timeout` seconds without any.

        Call it often even when everything is paused: that is what shows the group that this member lives.
        """
        ...

    def revoked(self) -> frozenset[Partition]:
        """The partitions taken away since the last call of `revoked`. Their unfinished records are another's now."""
        ...

    def truncated(self) -> Mapping[Partition, int]:
        """Where records that this group had not finished are no more, since the last call; they are not delivered.

        By partition, the offset up to which it had read. It reads on from the oldest record that is left.
        """
        ...

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Deliver nothing of these until `resume`; the membership stays, whatever rebalances happen."""
        ...

    def resume(self, partitions: Iterable[Partition]) -> None: ...

    async def commit(self, finished: Mapping[Partition, int]) -> None:
        """Everything before these offsets is finished.

        A partition that this member no longer owns is left out in silence: its new owner reads it again.
        """
        ...

    async def lag(self) -> Mapping[Partition, int]:
        """For each owned partition, how many records stand between the last commit and the end."""
        ...

    async def close(self) -> None:
        """Leave the group, so that others take over at once. Commits nothing."""
        ...


class Log(Protocol):
    async def append(self, records: Sequence[Append]) -> Sequence[int]:
        """Write all, durably, and return their offsets in the same order.

        Not a transaction: when it raises, any of them may have landed.
        """
        ...

    async def group(self, name: str, topics: Sequence[str]) -> Group:
        """Join the group `name` as a new member over `topics`, which must exist."""
        ...

    def follow(self, topic: str, *, start: Mapping[int, int] | None = None) -> AsyncGenerator[Batch, None]:
        """Every record of `topic` (which must exist) in batches, then new ones as they come; never ends by itself.

        Begins at the oldest record, or in each partition at `start`: the positions of a batch that was seen before. The
        first batch comes even when the topic is empty, and a batch may have positions alone. Leave it with `aclosing`.
        """
        ...

    async def end(self, topic: str) -> Mapping[int, int]:
        """For each partition number, the offset that the next record will get at the earliest."""
        ...

    async def ensure(self, topics: Sequence[str]) -> Sequence[str]:
        """Make those of our topics that are missing, with the settings of `schemas.topics`; returns the made ones.

        Settings of existing topics that would lose data (wrong clean-up policy) raise `LogError`.
        """
        ...

    async def missing(self, topics: Sequence[str]) -> Sequence[str]:
        """Those of `topics` that do not exist."""
        ...

    async def close(self) -> None: ...
