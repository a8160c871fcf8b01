"""The embedded log: the port on one SQLite file that one process owns.

It is durable (WAL, synchronous FULL, group commit) and complete: a small site can keep it for ever. `file` opens and
checks the file, `writer` does the group commit, `group` the groups, `sweep` the retention.
"""

import asyncio
import zlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

import structlog

from mesh.clock import Clock
from mesh.errors import LogError, LogUnavailable
from mesh.log.checks import encoded_key, topic_settings
from mesh.log.port import Append, Batch
from mesh.log.sqlite.file import open_file
from mesh.log.sqlite.group import Membership, SqliteGroup
from mesh.log.sqlite.statements import Row, StoredPartition, Topic
from mesh.log.sqlite.store import Store
from mesh.log.sqlite.sweep import sweep
from schemas.topics import Cleanup, TopicSettings

LOG = structlog.get_logger()
_SWEEP_INTERVAL = 3600.0  # seconds
_CHECK_INTERVAL = 60.0  # seconds between two checks whether a sweep is due
_FOLLOW_RECORDS = 1000


async def open_log(path: Path, *, clock: Clock) -> "SqliteLog":
    """Opens or creates the log at `path`.

    Raises:
        LogInUse: Another process has the file open.
        LogError: The file is damaged or unsuitable.
    """
    file = await asyncio.to_thread(open_file, path)
    return SqliteLog(Store(file), clock)


class SqliteLog:
    """`mesh.log.port.Log` in one process. Created by `open_log`; used in the event loop that created it."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._opened = clock.monotonic()
        self._groups: dict[str, Membership] = {}
        self._closing: asyncio.Task[None] | None = None
        self._sweeper = asyncio.create_task(self._sweep_periodically(), name="log-sweeper")

    async def append(self, records: Sequence[Append], *, then: Sequence[Append] = ()) -> Sequence[int]:
        """Writes all records in one transaction; creates topics that do not exist yet."""
        self._store.check_open()
        records = [*records, *then]
        for name in {record.topic for record in records} - self._store.topics.keys():
            await self.ensure([name])
        now_ms = int(self._clock.now().timestamp() * 1000)
        rows = [self._row(record, now_ms) for record in records]
        size = sum(len(row.key) + len(row.value or b"") for row in rows)
        return await self._store.writer.run(lambda transaction: transaction.append(rows), size=size)

    def _row(self, record: Append, now_ms: int) -> Row:
        key = encoded_key(record)
        topic = self._store.topic(record.topic)
        partition = topic.partitions[zlib.crc32(key) % len(topic.partitions)]
        return Row(partition.id, topic.cleanup is Cleanup.COMPACT, record.key, record.value, now_ms)

    async def group(self, name: str, topics: Sequence[str]) -> SqliteGroup:
        self._store.check_open()
        membership = self._groups.get(name)
        if membership is None:
            membership = self._groups[name] = Membership(name, self._store, self._clock.monotonic)
        return await membership.join(topics)

    async def follow(
        self, topic: str, *, start: Mapping[int, int] | None = None
    ) -> AsyncGenerator[Batch, None]:
        stored = self._store.topic(topic).partitions
        positions = {
            number: (start or {}).get(number, 0) for number in (it.partition.number for it in stored)
        }
        resume = dict(positions)
        appended = asyncio.Event()
        with self._store.notifying(topic, appended):
            while True:
                appended.clear()  # before reading, so that an append during the read sets it again
                batch = await self._next_batch(stored, resume, positions)
                yield batch
                if self._is_at_end(stored, positions):
                    self._store.check_open()
                    await appended.wait()

    async def _next_batch(
        self, stored: Sequence[StoredPartition], resume: dict[int, int], positions: dict[int, int]
    ) -> Batch:
        """Reads on from `resume`. A position moves only when its partition was read to the end of one snapshot.

        A key that changes while a long partition is read in several pages may be in none of the pages before the last,
        so a reader that trusted a position in between would miss it.
        """
        starts = [(it, resume[it.partition.number]) for it in stored]
        page = await self._store.page(starts, max_records=_FOLLOW_RECORDS)
        resume |= {partition.number: offset for partition, offset in page.resume.items()}
        positions |= {partition.number: resume[partition.number] for partition in page.ended}
        return Batch(page.records, dict(positions))

    def _is_at_end(self, stored: Sequence[StoredPartition], positions: Mapping[int, int]) -> bool:
        return all(positions[it.partition.number] >= self._store.end(it) for it in stored)

    def topics(self) -> Sequence[str]:
        """Returns the topics that exist."""
        return list(self._store.topics)

    async def end(self, topic: str) -> Mapping[int, int]:
        self._store.check_open()
        return self.ends(topic)

    def ends(self, topic: str) -> Mapping[int, int]:
        """Returns what `end` does, without a wait."""
        return {it.partition.number: self._store.end(it) for it in self._store.topic(topic).partitions}

    async def ensure(self, topics: Sequence[str]) -> Sequence[str]:
        self._store.check_open()
        wanted = {name: topic_settings(name) for name in topics}
        for name in wanted.keys() & self._store.topics.keys():
            _refuse_other_cleanup(name, self._store.topics[name], wanted[name])
        created = {name: wanted[name] for name in wanted if name not in self._store.topics}
        if created:
            await self._store.writer.run(lambda transaction: transaction.create_topics(created))
            await self._store.refresh()
        return list(created)

    async def missing(self, topics: Sequence[str]) -> Sequence[str]:
        self._store.check_open()
        known = {name: topic_settings(name) for name in topics}
        return [name for name in known if name not in self._store.topics]

    async def expiring(self, group: str, topic: str) -> None:  # noqa: ARG002  # the sweep keeps what is unfinished
        """Returns None: the sweep never deletes what a group has not finished."""
        self._store.topic(topic)

    async def close(self) -> None:
        """Finishes waiting appends, then closes the file. Readers get `LogUnavailable`."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="log-close")
        await asyncio.shield(self._closing)  # a cancelled caller must not leave the file half closed

    async def _close(self) -> None:
        self._sweeper.cancel()
        await asyncio.wait([self._sweeper])
        await self._store.close()

    async def _sweep_periodically(self) -> None:
        due = self._clock.monotonic()
        while True:
            if self._clock.monotonic() >= due:
                due = self._clock.monotonic() + _SWEEP_INTERVAL
                await self._sweep_once()
            await asyncio.sleep(
                _CHECK_INTERVAL
            )  # not `clock.sleep`: a manual clock would make this a busy loop

    def _joined(self, topic: str) -> set[str] | None:
        """Returns the groups with a member that reads the topic; None while they may still be joining after a start."""
        if self._clock.monotonic() < self._opened + _SWEEP_INTERVAL:
            return None
        return {name for name, membership in self._groups.items() if topic in membership.topics()}

    async def _sweep_once(self) -> None:
        try:
            await sweep(self._store, self._clock.now(), self._joined)
        except LogUnavailable as error:
            LOG.warning("sweep failed", action="log_sweep", error=str(error))


def _refuse_other_cleanup(name: str, topic: Topic, wanted: TopicSettings) -> None:
    if topic.cleanup is not wanted.cleanup:
        raise LogError(
            f"topic {name} was created with clean-up policy {topic.cleanup} and must have {wanted.cleanup}; "
            "move the log away to start a new one"
        )
