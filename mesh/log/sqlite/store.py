"""Access to the embedded log's file from the event loop: nothing here blocks, and appends wake up their readers.

Writes go through the group commit, reads through a connection in a thread of its own. The topics and their ends are
cached here; they change only when a commit has succeeded.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from mesh.errors import LogError, LogUnavailable
from mesh.log.sqlite.file import DISK_TIMEOUT, File, disk_timed_out, translated
from mesh.log.sqlite.page import Page, read_page
from mesh.log.sqlite.statements import StoredPartition, Topic, load_ends, load_topics
from mesh.log.sqlite.writer import Writer

T = TypeVar("T")
Subscriber = Callable[
    [str | None], None
]  # called with a topic that was appended to, and None when the log closes

_PAGE_BYTES = 8 << 20  # of one read, which bounds the memory of readers


class Store:
    """The topics, their ends, and access to the file. For one event loop."""

    def __init__(self, file: File) -> None:
        self._file = file
        self.topics: dict[str, Topic] = load_topics(file.writer)
        self._ends = load_ends(file.writer)
        self._topic_of_id = self._index()
        self._subscribers: dict[str, set[Subscriber]] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="log-reader")
        self.closed = False
        self.writer = Writer(file.writer, self._ends, self._committed)

    def _index(self) -> dict[int, str]:
        return {it.id: name for name, topic in self.topics.items() for it in topic.partitions}

    def topic(self, name: str) -> Topic:
        """Returns a topic.

        Raises:
            LogError: It does not exist.
        """
        found = self.topics.get(name)
        if found is None:
            raise LogError(f"there is no topic {name}; create it with `regmesh topics create`")
        return found

    def end(self, stored: StoredPartition) -> int:
        """Returns the offset that the next record of a partition gets."""
        return self._ends[stored.id]

    async def refresh(self) -> None:
        """Loads the topics again, after some were created."""
        self.topics = await self._in_reader(lambda: load_topics(self._file.reader))
        self._topic_of_id = self._index()

    async def page(self, starts: Sequence[tuple[StoredPartition, int]], *, max_records: int) -> Page:
        """Reads up to `max_records` and about 8 MiB from these offsets on, from one snapshot."""
        return await self._in_reader(
            lambda: read_page(self._file.reader, starts, max_records=max_records, max_bytes=_PAGE_BYTES)
        )

    async def _in_reader(self, work: Callable[[], T]) -> T:
        self.check_open()
        loop = asyncio.get_running_loop()
        try:
            with translated("the embedded log cannot read"):
                async with asyncio.timeout(DISK_TIMEOUT):
                    return await loop.run_in_executor(self._reader, work)
        except TimeoutError as error:
            raise disk_timed_out() from error

    def check_open(self) -> None:
        """Checks that the log is open.

        Raises:
            LogUnavailable: It was closed.
        """
        if self.closed:
            raise LogUnavailable("the embedded log is closed")

    @contextmanager
    def notifying(self, topic: str, event: asyncio.Event) -> Iterator[None]:
        """Sets `event` at each append to a topic, and when the log closes."""

        def notify(_: str | None) -> None:
            event.set()

        self.subscribe([topic], notify)
        try:
            yield
        finally:
            self.unsubscribe([topic], notify)

    def subscribe(self, topics: Sequence[str], subscriber: Subscriber) -> None:
        """Calls `subscriber` at each append to one of `topics`, and when the log closes."""
        for topic in topics:
            self._subscribers.setdefault(topic, set()).add(subscriber)

    def unsubscribe(self, topics: Sequence[str], subscriber: Subscriber) -> None:
        """Ends a subscription."""
        for topic in topics:
            self._subscribers.get(topic, set()).discard(subscriber)

    def _committed(self, ends: Mapping[int, int]) -> None:
        self._ends.update(ends)
        for topic in {self._topic_of_id[id_] for id_ in ends if id_ in self._topic_of_id}:
            for notify in self._subscribers.get(topic, ()):
                notify(topic)

    async def close(self) -> None:
        """Finishes waiting writes, then closes the file."""
        self.closed = True
        for notify in {one for them in self._subscribers.values() for one in them}:
            notify(None)
        await self.writer.close()
        await asyncio.to_thread(self._reader.shutdown)
        if self.writer.broken:
            self._file.abandon()
        else:
            self._file.close()
