"""The spool: appends wait in a file of this machine while the log is away, and follow in order when it is back.

A registry that sends a notification does not keep it for long, and some send it once. So what the log does not take in
time is written to an embedded log of its own, durably, before the sender gets its answer. As long as the spool holds
records of a topic, later ones of that topic go through it too: the records of a key stay in order. A record that the
log took although it did not answer in time is written twice, with the same id.
"""

import asyncio
import random as randomness
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import structlog

from mesh.clock import Clock
from mesh.errors import LogError, LogInUse, LogUnavailable
from mesh.log.port import Append, Group, Log, Record
from mesh.log.sqlite.engine import SqliteLog, open_log
from mesh.metrics import Metrics
from mesh.retry import Backoff, RetryLoop

LOG = structlog.get_logger()

_GROUP = "spool"
_BATCH = 500  # records of one append to the log
_BACKOFF = Backoff(first=0.2, longest=5.0)
_REFUSED_SECONDS = 5.0  # between two attempts for topics that the log refuses
_SUFFIXES = ("", "-wal", "-shm")  # SQLite's files


class Spool:
    """Appends to a log, or to its file while the log is away. Created by `open_spool`; call `run` to empty the file."""

    def __init__(
        self, log: Log, path: Path, *, clock: Clock, metrics: Metrics, limit: int, after: float,
        random: Callable[[], float] = randomness.random,
    ) -> None:  # fmt: skip
        """`limit` is the largest size of the file in bytes; `after` how long the log has for an append, in seconds."""
        self._log, self._path, self._clock, self._metrics = log, path, clock, metrics
        self._limit, self._after, self._random = limit, after, random
        self._file: SqliteLog | None = None
        self._opening = asyncio.Lock()  # held while the file is opened, or replaced by a new one
        self._groups: dict[str, Group] = {}
        self._sent: dict[
            str, dict[int, int]
        ] = {}  # by topic: the offset up to which the log has each partition
        self._unsent: dict[
            str, Sequence[Record]
        ] = {}  # by topic: what was read and the log has not taken yet
        self._writing: Counter[str] = Counter()  # by topic
        self._held: set[str] = set()  # topics with records that the log does not have
        self._since: str | None = None  # when the first of them came
        self._failure = ""
        self._refused: dict[str, str] = {}  # why the log refuses a topic
        self._changed = asyncio.Event()

    def is_log_away(self) -> bool:
        """Returns whether records wait for the log, so that asking it for anything else takes long."""
        return not self._held <= self._refused.keys()

    def notes(self) -> list[str]:
        """Returns what an operator should know of the spool, a sentence each."""
        refused = [f"the log refuses {topic}: {reason}" for topic, reason in sorted(self._refused.items())]
        if not self._held:
            return []
        size = f"{self._size()} of {self._limit} bytes"
        reasons = refused or [self._failure or "they are being sent to the log"]
        return [f"notifications wait in {self._path} since {self._since} ({size}): {'; '.join(reasons)}"]

    async def append(self, records: Sequence[Append], /) -> None:
        """Writes all records durably, to the log or to the file.

        Raises:
            LogUnavailable: Neither took them, for example because the file has reached its limit.
            LogError: A record is too large, or its key is not valid text.
        """
        topics = {record.topic for record in records}
        if topics.isdisjoint(self._held):
            try:
                async with asyncio.timeout(self._after):
                    await self._log.append(records)
            except TimeoutError:
                self._failure = f"the log did not answer within {self._after:g} s"
            except LogError as error:
                self._failure = str(error)
            else:
                return
        await self._keep(records, topics)

    async def run(self) -> None:
        """Sends what the file holds to the log, until cancelled."""
        retry = RetryLoop("spool", self._clock, self._random, _BACKOFF)
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._send()
                retry.reset()
            except LogError as error:  # of the log, or of the file, such as one that cannot be opened anew
                self._failure = str(error)
                await retry.wait(error)
                self._changed.set()
            if self._refused:
                await self._clock.sleep(_REFUSED_SECONDS)
                self._changed.set()
            elif not self._held:
                await self._start_over()

    async def open(self) -> None:
        """Opens or creates the file; what it holds is sent by `run`.

        Raises:
            LogInUse: Another process has it open.
            LogError: It is damaged or cannot be written.
        """
        await self._opened()

    async def aclose(self) -> None:
        """Closes the file; what it holds is sent by the next process."""
        file, self._file = self._file, None
        if file is not None:
            await file.close()

    async def _keep(self, records: Sequence[Append], topics: Collection[str]) -> None:
        if not self._held:
            self._since = self._clock.now().isoformat(timespec="seconds")
        self._held |= set(topics)  # before the first wait, so that what comes now does not overtake these
        self._writing.update(topics)
        try:
            if self._size() >= self._limit:
                raise LogUnavailable(f"the spool {self._path} is full ({self._limit} bytes)")
            file = await self._opened()
            await file.append(records)
        except LogError as error:
            raise LogUnavailable(f"{self._failure or 'the log is away'}; {error}") from error
        finally:
            self._writing.subtract(topics)
            self._changed.set()
        self._metrics.spooled_records.inc(len(records))
        self._metrics.spool_bytes.set(self._size())

    async def _opened(self) -> SqliteLog:
        async with self._opening:
            if self._file is None:
                try:
                    file = await open_log(self._path, clock=self._clock)
                except LogInUse as error:
                    raise LogInUse(
                        f"the spool {self._path} is open in another process; give each process its own --data"
                    ) from error
                except LogError as error:
                    raise type(error)(f"the spool for notifications: {error}") from error
                try:
                    await self._find_unsent(file)
                except BaseException:
                    await file.close()
                    raise
                self._file = file
            return self._file

    async def _find_unsent(self, file: SqliteLog) -> None:
        """Finds what an earlier process left in the file."""
        self._groups, self._sent, self._unsent = {}, {}, {}
        for topic in file.topics():
            await self._join(file, topic)
            if not self._is_sent(file, topic):
                self._held.add(topic)
                self._since = self._since or "before this start"
        self._metrics.spool_bytes.set(self._size() if self._held else 0)
        self._changed.set()

    async def _join(self, file: SqliteLog, topic: str) -> Group:
        group = self._groups.get(topic)
        if group is None:
            group = self._groups[topic] = await file.group(_GROUP, [topic])
            lag = {partition.number: records for partition, records in (await group.lag()).items()}
            self._sent[topic] = {number: end - lag.get(number, 0) for number, end in file.ends(topic).items()}
        return group

    def _is_sent(self, file: SqliteLog, topic: str) -> bool:
        sent = self._sent.get(topic, {})
        return all(sent.get(number, 0) >= end for number, end in file.ends(topic).items())

    async def _send(self) -> None:
        """Sends what the file holds of each topic. A topic that the log refuses does not hold back the others."""
        if not self._held:
            return
        file = await self._opened()
        for topic in sorted(self._held):
            try:
                if topic in file.topics():
                    await self._send_topic(file, topic)
                self._refused.pop(topic, None)
            except LogUnavailable:
                raise
            except LogError as error:
                self._note_refused(topic, str(error))
            if not self._writing[topic] and (topic not in file.topics() or self._is_sent(file, topic)):
                self._held.discard(topic)

    def _note_refused(self, topic: str, reason: str) -> None:
        if self._refused.get(topic) != reason:
            LOG.error(
                "the log refuses a topic of the spool", action="spool_refused", topic=topic, error=reason
            )
        self._refused[topic] = reason

    async def _send_topic(self, file: SqliteLog, topic: str) -> None:
        group = await self._join(file, topic)
        while records := self._unsent.get(topic) or await group.read(max_records=_BATCH, timeout=0):
            self._unsent[topic] = records
            await self._log.append([Append(topic, it.key, it.value) for it in records])
            del self._unsent[topic]
            finished = {it.partition: it.offset + 1 for it in records}
            self._sent[topic] |= {partition.number: offset for partition, offset in finished.items()}
            try:
                await group.commit(finished)
            except LogUnavailable as error:  # a full disk: what is sent is sent again only after a crash
                LOG.warning("the spool's file cannot be written", action="spool_commit", error=str(error))

    async def _start_over(self) -> None:
        """Removes the file that the log has all of, so that it gives its space back, and starts a new one."""
        async with self._opening:
            file = self._file
            if file is None or not file.topics() or self._held or self._writing.total():
                return
            self._file = None
            await file.close()
            self._since, self._failure = None, ""
            await asyncio.to_thread(_remove, self._path)
            self._metrics.spool_bytes.set(0)
            LOG.info("the spool is empty: the log has all of it", action="spool_sent")
        try:
            await self._opened()
        except LogError as error:  # the next append tries it again
            LOG.warning("the spool's file cannot be created", action="spool_open", error=str(error))

    def _size(self) -> int:
        """Returns the size of the file with its write-ahead log, in bytes."""
        size = 0
        for suffix in _SUFFIXES[:2]:
            try:
                size += Path(f"{self._path}{suffix}").stat().st_size
            except OSError:
                continue
        return size


def _remove(path: Path) -> None:
    for suffix in _SUFFIXES:
        Path(f"{path}{suffix}").unlink(missing_ok=True)


async def open_spool(
    log: Log, path: Path, *, clock: Clock, metrics: Metrics, limit: int, after: float
) -> Spool:
    """Opens or creates the spool at `path` in front of `log`; the arguments are those of `Spool`.

    Raises:
        LogInUse: Another process has it open.
        LogError: It is damaged or cannot be written.
    """
    spool = Spool(log, path, clock=clock, metrics=metrics, limit=limit, after=after)
    await spool.open()
    return spool
