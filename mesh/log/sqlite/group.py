"""Groups of the embedded log: the assignment of partitions is in this process's memory, the commits in the file."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from mesh.errors import LogUnavailable
from mesh.log.assignment import assign
from mesh.log.port import Partition, Record
from mesh.log.sqlite.page import Page
from mesh.log.sqlite.statements import StoredPartition
from mesh.log.sqlite.store import Store

_SESSION_TIMEOUT = 60.0  # seconds without a read after which a member's partitions go to the others
_CHECK_INTERVAL = 10.0  # seconds between two checks of a waiting member for sessions that timed out


class Membership:
    """One group: its members, the partitions of each, and the commits."""

    def __init__(self, name: str, store: Store, monotonic: Callable[[], float]) -> None:
        self.name = name
        self.store = store
        self.committed: dict[Partition, int] = {}
        self.stored: dict[Partition, StoredPartition] = {}
        self._monotonic = monotonic
        self._last_poll: dict[SqliteGroup, float] = {}  # when each member last read
        self._owners: dict[Partition, SqliteGroup] = {}

    async def join(self, topics: Sequence[str]) -> "SqliteGroup":
        """Adds a member that reads `topics`."""
        stored = [it for topic in topics for it in self.store.topic(topic).partitions]
        commits = await self.store.writer.run(
            lambda transaction: transaction.register(self.name, [it.id for it in stored])
        )
        for it in stored:
            self.stored[it.partition] = it
            self.committed.setdefault(it.partition, commits[it.id])
        member = SqliteGroup(self, topics)
        self.polled(member)
        return member

    def topics(self) -> set[str]:
        """Returns the topics that its members read."""
        return {topic for member in self._last_poll for topic in member.topics}

    def owns(self, member: "SqliteGroup", partition: Partition) -> bool:
        """Returns whether a partition is assigned to `member`."""
        return self._owners.get(partition) is member

    def polled(self, member: "SqliteGroup") -> None:
        """Notes that a member reads: it joins (again) if necessary, and members that timed out are removed."""
        now = self._monotonic()
        joins = member not in self._last_poll
        self._last_poll[member] = now
        timed_out = [
            other
            for other, polled_at in self._last_poll.items()
            if now - polled_at > _SESSION_TIMEOUT and not other.reading
        ]
        for other in timed_out:
            del self._last_poll[other]
        if joins or timed_out:
            self._rebalance()

    def leave(self, member: "SqliteGroup") -> None:
        """Removes a member."""
        if self._last_poll.pop(member, None) is not None:
            self._rebalance()

    def _rebalance(self) -> None:
        readers: dict[str, list[SqliteGroup]] = {}
        for member in self._last_poll:
            for topic in member.topics:
                readers.setdefault(topic, []).append(member)
        before = self._owners
        self._owners = assign(list(self.stored), readers, before)
        for member in {*before.values(), *self._last_poll}:
            member.reassign({partition for partition, owner in self._owners.items() if owner is member})


class SqliteGroup:
    """A member of a group: `mesh.log.port.Group`."""

    def __init__(self, membership: Membership, topics: Sequence[str]) -> None:
        self.topics = tuple(topics)
        self.reading = False
        self._membership = membership
        self._store = membership.store
        self._positions: dict[Partition, int] = {}  # the next offset to read of each owned partition
        self._behind: set[Partition] = set()  # those of them that may have records to read
        self._paused: set[Partition] = set()
        self._revoked: set[Partition] = set()
        self._turn = 0  # rotates which partition is read first, so that a long one does not starve the others
        self._closed = False
        self._wakeup = asyncio.Event()
        self._store.subscribe(self.topics, self._appended)

    async def read(self, *, max_records: int, timeout: float) -> Sequence[Record]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        self.reading = True
        try:
            while True:
                self._check_open()
                self._wakeup.clear()  # before reading, so that an append during the read sets it again
                self._membership.polled(self)
                found = await self._fetch(max_records)
                left = deadline - loop.time()
                if found or left <= 0:
                    return found
                await self._wait(min(left, _CHECK_INTERVAL))
        finally:
            self.reading = False

    def _check_open(self) -> None:
        self._store.check_open()
        if self._closed:
            raise LogUnavailable(f"this member of the group {self._membership.name} has left")

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wakeup.wait()
        except TimeoutError:
            pass

    async def _fetch(self, max_records: int) -> Sequence[Record]:
        starts = self._starts()
        if not starts:
            return []
        page = await self._store.page(starts, max_records=max_records)
        return self._deliver(page, {it.partition: start for it, start in starts})

    def _starts(self) -> list[tuple[StoredPartition, int]]:
        """Looks at partitions that were appended to alone: most of a thousand are idle."""
        stored, positions = self._membership.stored, self._positions
        self._behind = {
            it for it in self._behind if it in positions and positions[it] < self._store.end(stored[it])
        }
        ready = [(stored[it], positions[it]) for it in sorted(self._behind - self._paused)]
        self._turn += 1
        first = self._turn % len(ready) if ready else 0
        return ready[first:] + ready[:first]

    def _deliver(self, page: Page, starts: Mapping[Partition, int]) -> Sequence[Record]:
        """Returns the records of partitions that were neither revoked, paused nor moved while the page was read."""
        valid = {
            partition
            for partition, start in starts.items()
            if self._positions.get(partition) == start and partition not in self._paused
        }
        self._positions |= {
            partition: offset for partition, offset in page.resume.items() if partition in valid
        }
        return [record for record in page.records if record.partition in valid]

    def reassign(self, owned: set[Partition]) -> None:
        """Takes a new assignment: newly assigned partitions start at the last commit."""
        self._revoked |= self._positions.keys() - owned
        committed = self._membership.committed
        self._positions = {
            partition: self._positions.get(partition, committed[partition]) for partition in owned
        }
        self._behind = set(owned)
        self._wakeup.set()

    def _appended(self, topic: str | None) -> None:
        """Called by the store; with None when the log closes."""
        if topic is not None:
            self._behind.update(it.partition for it in self._store.topic(topic).partitions)
        self._wakeup.set()

    def revoked(self) -> frozenset[Partition]:
        revoked, self._revoked = frozenset(self._revoked), set()
        return revoked

    def truncated(self) -> Mapping[Partition, int]:
        """Returns nothing: the sweep never deletes what a group has not finished."""
        return {}

    def pause(self, partitions: Iterable[Partition]) -> None:
        self._paused.update(partitions)

    def resume(self, partitions: Iterable[Partition]) -> None:
        self._paused.difference_update(partitions)
        self._wakeup.set()

    async def commit(self, finished: Mapping[Partition, int]) -> None:
        owned = {
            partition: offset
            for partition, offset in finished.items()
            if self._membership.owns(self, partition)
        }
        if not owned:
            return
        by_id = {self._membership.stored[partition].id: offset for partition, offset in owned.items()}
        await self._store.writer.run(lambda transaction: transaction.commit(self._membership.name, by_id))
        self._membership.committed |= owned

    async def lag(self) -> Mapping[Partition, int]:
        stored, committed = self._membership.stored, self._membership.committed
        return {
            partition: self._store.end(stored[partition]) - committed[partition]
            for partition in self._positions
        }

    async def close(self) -> None:
        self._closed = True
        self._store.unsubscribe(self.topics, self._appended)
        self._membership.leave(self)
        self._wakeup.set()
