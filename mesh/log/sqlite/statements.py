"""What the embedded log says to SQLite: plain calls on a connection, each in the one thread that owns it."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import takewhile
from typing import NamedTuple

from mesh.log.port import Partition, Record
from schemas.topics import Cleanup, TopicSettings

_OFFSETS = 1 << 40  # offsets in a partition; ids of partitions stand above


class Place(NamedTuple):
    """A partition and its id in the file."""

    partition: Partition
    id: int


class Row(NamedTuple):
    """A record to write; `written_at` in milliseconds since 1970."""

    partition: int
    compacted: bool
    key: str
    value: bytes | None
    written_at: int


class Commit(NamedTuple):
    group: str
    next_offset: int


class Topic(NamedTuple):
    cleanup: Cleanup
    places: Sequence[Place]


@dataclass(slots=True)
class Page:
    """What one read found. `resume` says where to read on; `ended` has the partitions that were read to their end."""

    records: list[Record] = field(default_factory=list)
    resume: dict[Partition, int] = field(default_factory=dict)
    ended: set[Partition] = field(default_factory=set)


class Transaction:
    """One group commit: what its parts write, and the next offsets they moved (by partition id)."""

    def __init__(self, connection: sqlite3.Connection, ends: Mapping[int, int]) -> None:
        self._connection = connection
        self._ends = ends
        self.moved: dict[int, int] = {}

    def append(self, rows: Sequence[Row]) -> list[int]:
        """Their offsets. In a compacted topic a row takes the place of its key's last one."""
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
                    row.partition * _OFFSETS + offset,
                    row.key,
                    row.value,
                    row.written_at,
                    row.partition if row.compacted else None,
                )
                for row, offset in rows
            ),
        )

    def _next_offset(self, partition: int) -> int:
        offset = self.moved.get(partition)
        if offset is None:
            offset = self._ends[partition]
        self.moved[partition] = offset + 1
        return offset

    def store_ends(self) -> None:
        """Last in the transaction, so that a partition's row is written once."""
        self._connection.executemany(
            "UPDATE partitions SET next_offset = ? WHERE id = ?",
            [(end, partition) for partition, end in self.moved.items()],
        )

    def make_topics(self, wanted: Mapping[str, TopicSettings]) -> None:
        for name, settings in wanted.items():
            self._make_topic(name, settings.cleanup, settings.partitions)

    def _make_topic(self, name: str, cleanup: Cleanup, partitions: int) -> None:
        self._connection.execute(
            "INSERT OR IGNORE INTO topics (name, cleanup) VALUES (?, ?)", (name, cleanup)
        )
        for number in range(partitions):
            made = self._connection.execute(
                "INSERT OR IGNORE INTO partitions (topic, number, next_offset) VALUES (?, ?, 0) RETURNING id",
                (name, number),
            ).fetchone()
            if made:
                self.moved[made[0]] = 0

    def commit(self, group: str, finished: Mapping[int, int]) -> None:
        self._connection.executemany(
            "INSERT OR REPLACE INTO commits (reader, partition, next_offset) VALUES (?, ?, ?)",
            [(group, partition, offset) for partition, offset in finished.items()],
        )

    def register(self, group: str, partitions: Iterable[int]) -> dict[int, int]:
        """Commits of a group that may be new in some partitions: there it starts at the oldest record."""
        found = {}
        for partition in partitions:
            self._connection.execute(
                "INSERT OR IGNORE INTO commits (reader, partition, next_offset) VALUES (?, ?, ?)",
                (group, partition, self._oldest(partition)),
            )
            row = self._connection.execute(
                "SELECT next_offset FROM commits WHERE reader = ? AND partition = ?", (group, partition)
            )
            (found[partition],) = row.fetchone()
        return found

    def _oldest(self, partition: int) -> int:
        row = self._connection.execute(
            "SELECT position FROM records WHERE position >= ? AND position < ? ORDER BY position LIMIT 1",
            (partition * _OFFSETS, (partition + 1) * _OFFSETS),
        ).fetchone()
        if row:
            return int(row[0]) % _OFFSETS
        return self.moved.get(partition, self._ends.get(partition, 0))

    def sweep_tombstones(self, partition: int, before: int, limit: int) -> int:
        """Delete up to `limit` tombstones written before `before` (milliseconds); returns how many."""
        return self._connection.execute(
            "DELETE FROM records WHERE position IN (SELECT position FROM records "
            "WHERE compacted = ? AND value IS NULL AND written_at < ? LIMIT ?)",
            (partition, before, limit),
        ).rowcount

    def sweep_expired(self, partition: int, before: int, limit: int) -> int:
        """Delete up to `limit` of the oldest records, if written before `before` and finished by every group."""
        first = partition * _OFFSETS
        held = self.slowest(partition)
        rows = self._connection.execute(
            "SELECT position, written_at FROM records WHERE position >= ? AND position < ? ORDER BY position LIMIT ?",
            (first, first + (held.next_offset if held else _OFFSETS), limit),
        )
        expired = [position for position, _ in takewhile(lambda row: row[1] < before, rows.fetchall())]
        if expired:
            self._connection.execute(
                "DELETE FROM records WHERE position >= ? AND position <= ?", (first, expired[-1])
            )
        return len(expired)

    def slowest(self, partition: int) -> Commit | None:
        row = self._connection.execute(
            "SELECT reader, next_offset FROM commits WHERE partition = ? ORDER BY next_offset LIMIT 1",
            (partition,),
        ).fetchone()
        return Commit(*row) if row else None

    def oldest_written_at(self, partition: int) -> int | None:
        """Milliseconds since 1970."""
        row = self._connection.execute(
            "SELECT written_at FROM records WHERE position >= ? AND position < ? ORDER BY position LIMIT 1",
            (partition * _OFFSETS, (partition + 1) * _OFFSETS),
        ).fetchone()
        return int(row[0]) if row else None


def load_topics(connection: sqlite3.Connection) -> dict[str, Topic]:
    """In one statement, and so of one moment: topics are made while this reads."""
    places: dict[tuple[str, str], list[Place]] = {}
    for topic, cleanup, number, id_ in connection.execute(
        "SELECT topic, cleanup, number, id FROM partitions JOIN topics ON name = topic ORDER BY topic, number"
    ):
        places.setdefault((topic, cleanup), []).append(Place(Partition(topic, number), id_))
    return {topic: Topic(Cleanup(cleanup), found) for (topic, cleanup), found in places.items()}


def load_ends(connection: sqlite3.Connection) -> dict[int, int]:
    return dict(connection.execute("SELECT id, next_offset FROM partitions").fetchall())


def read_page(
    connection: sqlite3.Connection, starts: Sequence[tuple[Place, int]], *, max_records: int, max_bytes: int
) -> Page:
    """Records of these partitions from these offsets on, all from one snapshot, until a bound is met."""
    page = Page()
    connection.execute("BEGIN")
    try:
        for place, start in starts:
            left = max_records - len(page.records)
            if left > 0 and max_bytes > 0:
                max_bytes -= _read_partition(
                    connection, page, place, start, max_records=left, max_bytes=max_bytes
                )
    finally:
        connection.execute("ROLLBACK")  # it only read
    return page


def _read_partition(
    connection: sqlite3.Connection, page: Page, place: Place, start: int, *, max_records: int, max_bytes: int
) -> int:
    """The bytes added to `page`; one record is taken even when it is larger than what is left."""
    (end,) = connection.execute("SELECT next_offset FROM partitions WHERE id = ?", (place.id,)).fetchone()
    rows = connection.execute(
        "SELECT position, key, value, written_at FROM records "
        "WHERE position >= ? AND position < ? ORDER BY position LIMIT ?",
        (place.id * _OFFSETS + start, (place.id + 1) * _OFFSETS, max_records),
    )
    taken = count = 0
    for position, key, value, written_at in rows:
        offset = position % _OFFSETS
        at = datetime.fromtimestamp(written_at / 1000, UTC)
        page.records.append(Record(place.partition, offset, key, value, at))
        page.resume[place.partition] = offset + 1
        count, taken = count + 1, taken + len(key) + len(value or b"")
        if taken >= max_bytes:
            return taken
    if count < max_records:
        page.resume[place.partition] = max(start, end)
        page.ended.add(place.partition)
    return taken
