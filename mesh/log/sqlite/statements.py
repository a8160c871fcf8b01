"""The SQL of the embedded log: plain calls on a connection, each in the one thread that owns it."""

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

from mesh.log.port import Partition
from schemas.topics import Cleanup, TopicSettings

OFFSETS = 1 << 40  # offsets of a partition; a position is the partition's id times this plus the offset


class StoredPartition(NamedTuple):
    """A partition and its id in the file."""

    partition: Partition
    id: int


class Row(NamedTuple):
    """A record to write; `written_at` is in milliseconds since 1970."""

    partition: int
    compacted: bool
    key: str
    value: bytes | None
    written_at: int


class Commit(NamedTuple):
    """Up to which offset a group has finished a partition."""

    group: str
    next_offset: int


class Topic(NamedTuple):
    """A topic in the file."""

    cleanup: Cleanup
    partitions: Sequence[StoredPartition]


class Transaction:
    """One group commit: what its jobs write, and the new end of each partition that they change, by partition id."""

    def __init__(self, connection: sqlite3.Connection, ends: Mapping[int, int]) -> None:
        self._connection = connection
        self._ends = ends
        self.new_ends: dict[int, int] = {}

    def append(self, rows: Sequence[Row]) -> list[int]:
        """Writes records and returns their offsets. In a compacted topic a row replaces the last one of its key."""
        if any(row.compacted for row in rows):
            return [self._replace(row) for row in rows]
        offsets = [self._next_offset(row.partition) for row in rows]
        self._insert(zip(rows, offsets, strict=True))
        return offsets

    def _replace(self, row: Row) -> int:
        if row.compacted:
            self._connection.execute(
                "DELETE FROM records WHERE compacted = ? AND key = ?", (row.partition, row.key)
            )
        offset = self._next_offset(row.partition)
        self._insert([(row, offset)])
        return offset

    def _insert(self, rows: Iterable[tuple[Row, int]]) -> None:
        self._connection.executemany(
            "INSERT INTO records (position, key, value, written_at, compacted) VALUES (?, ?, ?, ?, ?)",
            (
                (
                    row.partition * OFFSETS + offset,
                    row.key,
                    row.value,
                    row.written_at,
                    row.partition if row.compacted else None,
                )
                for row, offset in rows
            ),
        )

    def _next_offset(self, partition: int) -> int:
        offset = self.new_ends.get(partition)
        if offset is None:
            offset = self._ends[partition]
        self.new_ends[partition] = offset + 1
        return offset

    def store_ends(self) -> None:
        """Writes the new ends; called last in the transaction, so that each partition's row is written once."""
        self._connection.executemany(
            "UPDATE partitions SET next_offset = ? WHERE id = ?",
            [(end, partition) for partition, end in self.new_ends.items()],
        )

    def create_topics(self, wanted: Mapping[str, TopicSettings]) -> None:
        """Creates those of these topics that do not exist."""
        for name, settings in wanted.items():
            self._create_topic(name, settings.cleanup, settings.partitions)

    def _create_topic(self, name: str, cleanup: Cleanup, partitions: int) -> None:
        self._connection.execute(
            "INSERT OR IGNORE INTO topics (name, cleanup) VALUES (?, ?)", (name, cleanup)
        )
        for number in range(partitions):
            created = self._connection.execute(
                "INSERT OR IGNORE INTO partitions (topic, number, next_offset) VALUES (?, ?, 0) RETURNING id",
                (name, number),
            ).fetchone()
            if created:
                self.new_ends[created[0]] = 0

    def commit(self, group: str, finished: Mapping[int, int]) -> None:
        """Writes the commits of a group, by partition id."""
        self._connection.executemany(
            "INSERT INTO commits (reader, partition, next_offset) VALUES (?, ?, ?) "
            "ON CONFLICT (reader, partition) DO UPDATE SET next_offset = excluded.next_offset",
            [(group, partition, offset) for partition, offset in finished.items()],
        )

    def register(self, group: str, partitions: Iterable[int]) -> dict[int, int]:
        """Returns the commits of a group by partition id; in partitions new to it, it starts at the oldest record."""
        found = {}
        for partition in partitions:
            self._connection.execute(
                "INSERT OR IGNORE INTO commits (reader, partition, next_offset) VALUES (?, ?, ?)",
                (group, partition, self._oldest(partition)),
            )
            self._set_left_at(group, partition, None)
            row = self._connection.execute(
                "SELECT next_offset FROM commits WHERE reader = ? AND partition = ?", (group, partition)
            )
            (found[partition],) = row.fetchone()
        return found

    def _oldest(self, partition: int) -> int:
        row = self._connection.execute(
            "SELECT position FROM records WHERE position >= ? AND position < ? ORDER BY position LIMIT 1",
            (partition * OFFSETS, (partition + 1) * OFFSETS),
        ).fetchone()
        if row:
            return int(row[0]) % OFFSETS
        return self.new_ends.get(partition, self._ends.get(partition, 0))

    def sweep_tombstones(self, partition: int, before: int, limit: int) -> int:
        """Deletes up to `limit` tombstones written before `before` (in milliseconds); returns how many."""
        return self._connection.execute(
            "DELETE FROM records WHERE position IN (SELECT position FROM records "
            "WHERE compacted = ? AND value IS NULL AND written_at < ? LIMIT ?)",
            (partition, before, limit),
        ).rowcount

    def sweep_expired(self, partition: int, before: int, limit: int) -> int:
        """Deletes up to `limit` of the oldest records written before `before` that every group has finished.

        Returns how many.
        """
        first = partition * OFFSETS
        slowest = self.slowest(partition)
        rows = self._connection.execute(
            "SELECT position, written_at FROM records WHERE position >= ? AND position < ? ORDER BY position LIMIT ?",
            (first, first + (slowest.next_offset if slowest else OFFSETS), limit),
        )
        expired = [position for position, _ in takewhile(lambda row: row[1] < before, rows.fetchall())]
        if expired:
            self._connection.execute(
                "DELETE FROM records WHERE position >= ? AND position <= ?", (first, expired[-1])
            )
        return len(expired)

    def slowest(self, partition: int) -> Commit | None:
        """Returns the commit of the group that has finished least of a partition."""
        row = self._connection.execute(
            "SELECT reader, next_offset FROM commits WHERE partition = ? ORDER BY next_offset LIMIT 1",
            (partition,),
        ).fetchone()
        return Commit(*row) if row else None

    def expire_commits(self, partition: int, joined: Collection[str], *, now: int, before: int) -> list[str]:
        """Deletes the commits of groups that nobody has joined for a partition since `before`.

        Args:
            partition: The partition's id.
            joined: The groups that have a member which reads it.
            now: The present time, in milliseconds since 1970.
            before: A time, in milliseconds since 1970.

        Returns:
            The groups whose commits were deleted.
        """
        expired = []
        commits = "SELECT reader, left_at FROM commits WHERE partition = ?"
        for group, left_at in self._connection.execute(commits, (partition,)).fetchall():
            if group in joined:
                if left_at is not None:
                    self._set_left_at(group, partition, None)
            elif left_at is None:
                self._set_left_at(group, partition, now)
            elif left_at < before:
                expired.append(group)
        self._connection.executemany(
            "DELETE FROM commits WHERE reader = ? AND partition = ?",
            [(group, partition) for group in expired],
        )
        return expired

    def _set_left_at(self, group: str, partition: int, time: int | None) -> None:
        self._connection.execute(
            "UPDATE commits SET left_at = ? WHERE reader = ? AND partition = ? AND left_at IS NOT ?",
            (time, group, partition, time),
        )

    def give_back(self, limit: int, *, keep: int) -> int:
        """Gives up to `limit` free pages back to the file system, but leaves `keep` of them; returns how many."""
        (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        (mode,) = self._connection.execute("PRAGMA auto_vacuum").fetchone()
        pages = min(limit, int(free) - keep)
        if pages <= 0 or mode == 0:
            return 0
        self._connection.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
        return pages

    def oldest_written_at(self, partition: int) -> int | None:
        """Returns when the oldest record of a partition was written, in milliseconds since 1970."""
        row = self._connection.execute(
            "SELECT written_at FROM records WHERE position >= ? AND position < ? ORDER BY position LIMIT 1",
            (partition * OFFSETS, (partition + 1) * OFFSETS),
        ).fetchone()
        return int(row[0]) if row else None


def load_topics(connection: sqlite3.Connection) -> dict[str, Topic]:
    """Loads all topics in one statement, and so from one snapshot: topics may be created at the same time."""
    partitions: dict[tuple[str, str], list[StoredPartition]] = {}
    for topic, cleanup, number, id_ in connection.execute(
        "SELECT topic, cleanup, number, id FROM partitions JOIN topics ON name = topic ORDER BY topic, number"
    ):
        partitions.setdefault((topic, cleanup), []).append(StoredPartition(Partition(topic, number), id_))
    return {topic: Topic(Cleanup(cleanup), found) for (topic, cleanup), found in partitions.items()}


def load_ends(connection: sqlite3.Connection) -> dict[int, int]:
    """Loads the next offset of each partition, by partition id."""
    return dict(connection.execute("SELECT id, next_offset FROM partitions").fetchall())
