"""The embedded log: the port on one SQLite file, owned by one process.

Durable (WAL, synchronous FULL, group commit) and complete: a small site can stay on it for ever. See `file`
for what the file must be, `writer` for group commit, `group` for groups, `sweep` for what is
forgotten.
"""

import asyncio
import zlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

import structlog

from mesh.clock import Clock
from mesh.errors import LogError, LogUnavailable
from mesh.log.port import Append, Batch
from mesh.log.sqlite.file import open_file
from mesh.log.sqlite.group import Membership, SqliteGroup
from mesh.log.sqlite.statements import Place, Row, Topic
from mesh.log.sqlite.store import Store
from mesh.log.sqlite.sweep import sweep
from schemas.codec import MAX_RECORD
from schemas.topics import Cleanup, TopicSettings, settings

LOG = structlog.get_logger()
_SWEEP_EVERY = 3600.0  # seconds
_GLANCE = 60.0  # seconds; how often the clock is asked whether a sweep is due
_FOLLOW_RECORDS = 1000


async def open_log(path: Path, *, clock: Clock) -> "SqliteLog":
    """Open or make the log at `path`. `LogInUse`, or `LogError` when the file is damaged or unfit."""
    file = await asyncio.to_thread(open_file, path)
    return SqliteLog(Store(file), clock)


class SqliteLog:
    """`mesh.log.port.Log` in one process. Made by `open_log`; used in the event loop that made it."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._groups: dict[str, Membership] = {}
        self._closing: asyncio.Task[None] | None = None
        self._sweeper = asyncio.create_task(self._sweep_for_ever(), name="log-sweeper")

    async def append(self, records: Sequence[Append]) -> Sequence[int]:
        """A topic of ours that does not exist yet is made."""
        self._store.check_open()
        for name in {record.topic for record in records} - self._store.topics.keys():
            await self.ensure([name])
        now_ms = int(self._clock.now().timestamp() * 1000)
        rows = [self._row(record, now_ms) for record in records]
        size = sum(len(row.key) + len(row.value or b"") for row in rows)
        return await self._store.writer.run(lambda transaction: transaction.append(rows), size=size)

    def _row(self, record: Append, now_ms: int) -> Row:
        key = _encoded(record)
        topic = self._store.topic(record.topic)
        place = topic.places[zlib.crc32(key) % len(topic.places)]
        return Row(place.id, topic.cleanup is Cleanup.COMPACT, record.key, record.value, now_ms)

    async def group(self, name: str, topics: Sequence[str]) -> SqliteGroup:
        self._store.check_open()
        membership = self._groups.get(name)
        if membership is None:
            membership = self._groups[name] = Membership(name, self._store, self._clock.monotonic)
        return await membership.join(topics)

    async def follow(
        self, topic: str, *, start: Mapping[int, int] | None = None
    ) -> AsyncGenerator[Batch, None]:
        places = self._store.topic(topic).places
        positions = {place.partition.number: (start or {}).get(place.partition.number, 0) for place in places}
        resume = dict(positions)
        bell = asyncio.Event()
        with self._store.listening([topic], bell):
            while True:
                bell.clear()  # before looking, so that what comes while looking rings again
                batch = await self._next_batch(places, resume, positions)
                yield batch
                if self._is_at_end(places, positions):
                    self._store.check_open()
                    await bell.wait()

    async def _next_batch(
        self, places: Sequence[Place], resume: dict[int, int], positions: dict[int, int]
    ) -> Batch:
        """Read on from `resume`. A position moves only when its partition was read to the end of one snapshot.

        A key that changes while a long partition is read piece by piece stands in none of the pieces before the last:
        who trusted a position in between would miss it.
        """
        starts = [(place, resume[place.partition.number]) for place in places]
        page = await self._store.page(starts, max_records=_FOLLOW_RECORDS)
        resume |= {partition.number: at for partition, at in page.resume.items()}
        positions |= {partition.number: resume[partition.number] for partition in page.ended}
        return Batch(page.records, dict(positions))

    def _is_at_end(self, places: Sequence[Place], positions: Mapping[int, int]) -> bool:
        return all(positions[place.partition.number] >= self._store.end(place) for place in places)

    async def end(self, topic: str) -> Mapping[int, int]:
        self._store.check_open()
        return {place.partition.number: self._store.end(place) for place in self._store.topic(topic).places}

    async def ensure(self, topics: Sequence[str]) -> Sequence[str]:
        self._store.check_open()
        wanted = {name: _settings(name) for name in topics}
        for name in wanted.keys() & self._store.topics.keys():
            _refuse_other_cleanup(name, self._store.topics[name], wanted[name])
        made = [name for name in wanted if name not in self._store.topics]
        if made:
            await self._store.writer.run(
                lambda transaction: transaction.make_topics({n: wanted[n] for n in made})
            )
            await self._store.refresh()
        return made

    async def missing(self, topics: Sequence[str]) -> Sequence[str]:
        self._store.check_open()
        known = {name: _settings(name) for name in topics}
        return [name for name in known if name not in self._store.topics]

    async def close(self) -> None:
        """Finish appends that wait, then let the file go. Whoever still reads gets `LogUnavailable`."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="log-close")
        await asyncio.shield(self._closing)  # who is cancelled here must not leave the file half closed

    async def _close(self) -> None:
        self._sweeper.cancel()
        await asyncio.wait([self._sweeper])
        await self._store.close()

    async def _sweep_for_ever(self) -> None:
        due = self._clock.monotonic()
        while True:
            if self._clock.monotonic() >= due:
                due = self._clock.monotonic() + _SWEEP_EVERY
                await self._sweep_once()
            await asyncio.sleep(_GLANCE)  # not the clock's: a test's clock may never let it wait

    async def _sweep_once(self) -> None:
        try:
            await sweep(self._store, self._clock.now())
        except LogUnavailable as error:
            LOG.warning("sweep failed", action="log_sweep", error=str(error))


def _encoded(record: Append) -> bytes:
    """The key's bytes; `LogError` for what no engine takes."""
    if len(record.value or b"") > MAX_RECORD:
        raise LogError(f"a record of {record.topic} is over {MAX_RECORD} bytes; nothing of ours comes near")
    try:
        return record.key.encode()
    except UnicodeEncodeError as error:
        raise LogError(f"a key of {record.topic} is not text") from error


def _settings(topic: str) -> TopicSettings:
    try:
        return settings(topic)
    except KeyError as error:
        raise LogError(f"{topic!r} is no topic of ours") from error


def _refuse_other_cleanup(name: str, topic: Topic, wanted: TopicSettings) -> None:
    if topic.cleanup is not wanted.cleanup:
        raise LogError(
            f"topic {name} was made to {topic.cleanup}, and is now to {wanted.cleanup}; move the log away"
        )
