"""Reads pages of records from the embedded log's file, each from one snapshot."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mesh.log.port import Partition, Record
from mesh.log.sqlite.statements import OFFSETS, StoredPartition


@dataclass(slots=True)
class Page:
    """The result of one read.

    `resume` has the next offset to read of each partition, `ended` the partitions that were read to their end.
    """

    records: list[Record] = field(default_factory=list)
    resume: dict[Partition, int] = field(default_factory=dict)
    ended: set[Partition] = field(default_factory=set)


def read_page(
    connection: sqlite3.Connection,
    starts: Sequence[tuple[StoredPartition, int]],
    *,
    max_records: int,
    max_bytes: int,
) -> Page:
    """Reads records of these partitions from these offsets on, all from one snapshot, until a limit is reached."""
    page = Page()
    connection.execute("BEGIN")
    try:
        for stored, start in starts:
            left = max_records - len(page.records)
            if left > 0 and max_bytes > 0:
                max_bytes -= _read_partition(
                    connection, page, stored, start, max_records=left, max_bytes=max_bytes
                )
    finally:
        connection.execute("ROLLBACK")  # it only read
    return page


def _read_partition(
    connection: sqlite3.Connection,
    page: Page,
    stored: StoredPartition,
    start: int,
    *,
    max_records: int,
    max_bytes: int,
) -> int:
    """Adds records to `page` and returns their bytes; adds at least one, even when it is larger than `max_bytes`."""
    (end,) = connection.execute("SELECT next_offset FROM partitions WHERE id = ?", (stored.id,)).fetchone()
    rows = connection.execute(
        "SELECT position, key, value, written_at FROM records "
        "WHERE position >= ? AND position < ? ORDER BY position LIMIT ?",
        (stored.id * OFFSETS + start, (stored.id + 1) * OFFSETS, max_records),
    )
    taken = count = 0
    for position, key, value, written_at in rows:
        offset = position % OFFSETS
        at = datetime.fromtimestamp(written_at / 1000, UTC)
        page.records.append(Record(stored.partition, offset, key, value, at))
        page.resume[stored.partition] = offset + 1
        count, taken = count + 1, taken + len(key) + len(value or b"")
        if taken >= max_bytes:
            return taken
    if count < max_records:
        page.resume[stored.partition] = max(start, end)
        page.ended.add(stored.partition)
    return taken
