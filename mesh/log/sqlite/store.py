"""The embedded log's file from the event loop: nothing here blocks, and whoever waits for a topic hears of its appends.

Writes go through the group commit, reads through a connection in a thread of its own. The topics and their ends are
kept here as well, and change only when a commit has landed.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from mesh.errors import LogError, LogUnavailable
from mesh.log.sqlite.file import File, translated
from mesh.log.sqlite.statements import Page, Place, Topic, load_ends, load_topics, read_page
from mesh.log.sqlite.writer import Writer

T = TypeVar("T")

_MAX_BYTES = 8 << 20  # of one read, so that readers' memory is bounded
_TIMEOUT = 30.0  # seconds


class Store:
    """Topics, their ends, and how to read and write. For one event loop."""

    def __init__(self, file: File) -> None:
        self._file = file
        self.topics: dict[str, Topic] = load_topics(file.writer)
        self._ends = load_ends(file.writer)
        self._owners = {place.id: name for name, topic in self.topics.items() for place in topic.places}
        self._bells: dict[str, set[asyncio.Event]] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="log-reader")
        self.closed = False
        self.writer = Writer(file.writer, self._ends, self._moved)

    def topic(self, name: str) -> Topic:
        """`LogError` when it does not exist."""
        found = self.topics.get(name)
        if found is None:
            raise LogError(f"there is no topic {name}; make it with `regmesh topics create`")
        return found

    def end(self, place: Place) -> int:
        return self._ends[place.id]

    async def refresh(self) -> None:
        """Learn of topics that were made."""
        self.topics = await self._in_reader(lambda: load_topics(self._file.reader))
        self._owners = {place.id: name for name, topic in self.topics.items() for place in topic.places}

    async def page(self, starts: Sequence[tuple[Place, int]], *, max_records: int) -> Page:
        """Up to `max_records` and about 8 MiB from these offsets on, of one snapshot."""
        return await self._in_reader(
            lambda: read_page(self._file.reader, starts, max_records=max_records, max_bytes=_MAX_BYTES)
        )

    async def _in_reader(self, work: Callable[[], T]) -> T:
        self.check_open()
        loop = asyncio.get_running_loop()
        try:
            with translated("the embedded log cannot read"):
                async with asyncio.timeout(_TIMEOUT):
                    return await loop.run_in_executor(self._reader, work)
        except TimeoutError as error:
            raise LogUnavailable(f"the embedded log's disk did not answer for {_TIMEOUT:.0f} s") from error

    def check_open(self) -> None:
        if self.closed:
            raise LogUnavailable("the embedded log is closed")

    @contextmanager
    def listening(self, topics: Sequence[str], bell: asyncio.Event) -> Iterator[None]:
        """`bell` is set at each append to one of `topics`, and when the log closes."""
        self.listen(topics, bell)
        try:
            yield
        finally:
            self.unlisten(topics, bell)

    def listen(self, topics: Sequence[str], bell: asyncio.Event) -> None:
        for topic in topics:
            self._bells.setdefault(topic, set()).add(bell)

    def unlisten(self, topics: Sequence[str], bell: asyncio.Event) -> None:
        for topic in topics:
            self._bells.get(topic, set()).discard(bell)

    def _moved(self, ends: Mapping[int, int]) -> None:
        self._ends.update(ends)
        for topic in {self._owners[partition] for partition in ends if partition in self._owners}:
            for bell in self._bells.get(topic, ()):
                bell.set()

    async def close(self) -> None:
        """Finish what waits to be written, then let the file go."""
        self.closed = True
        for bell in {bell for bells in self._bells.values() for bell in bells}:
            bell.set()
        await self.writer.close()
        await asyncio.to_thread(self._reader.shutdown)
        if self.writer.broken:
            self._file.abandon()
        else:
            self._file.close()
