"""Groups of the embedded log: who reads what lives in this process's memory, what is finished in the file."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from mesh.errors import LogUnavailable
from mesh.log.assignment import share
from mesh.log.port import Partition, Record
from mesh.log.sqlite.statements import Page, Place
from mesh.log.sqlite.store import Store

_SILENCE = 60.0  # seconds without a read after which a member counts as dead
_GLANCE = 1.0  # seconds; how often a waiting member looks whether another has died


class Membership:
    """One group: its members, the share of each, and the commits."""

    def __init__(self, name: str, store: Store, monotonic: Callable[[], float]) -> None:
        self.name = name
        self.store = store
        self.committed: dict[Partition, int] = {}
        self.places: dict[Partition, Place] = {}
        self._monotonic = monotonic
        self._heard: dict[SqliteGroup, float] = {}  # of members, when they last read
        self._owners: dict[Partition, SqliteGroup] = {}

    async def join(self, topics: Sequence[str]) -> "SqliteGroup":
        places = [place for topic in topics for place in self.store.topic(topic).places]
        known = await self.store.writer.run(
            lambda transaction: transaction.register(self.name, [place.id for place in places])
        )
        for place in places:
            self.places[place.partition] = place
            self.committed.setdefault(place.partition, known[place.id])
        member = SqliteGroup(self, topics)
        self.heard(member)
        return member

    def owns(self, member: "SqliteGroup", partition: Partition) -> bool:
        return self._owners.get(partition) is member

    def heard(self, member: "SqliteGroup") -> None:
        """`member` lives: it joins if it was not in, and those that were silent for too long are out."""
        now = self._monotonic()
        came = member not in self._heard
        self._heard[member] = now
        silent = [other for other, at in self._heard.items() if now - at > _SILENCE and not other.reading]
        for other in silent:
            del self._heard[other]
        if came or silent:
            self._share()

    def leave(self, member: "SqliteGroup") -> None:
        if self._heard.pop(member, None) is not None:
            self._share()

    def _share(self) -> None:
        readers: dict[str, list[SqliteGroup]] = {}
        for member in self._heard:
            for topic in member.topics:
                readers.setdefault(topic, []).append(member)
        before = self._owners
        self._owners = share(list(self.places), readers, before)
        for member in {*before.values(), *self._heard}:
            member.take_over({partition for partition, owner in self._owners.items() if owner is member})


class SqliteGroup:
    """A member, as `mesh.log.port.Group` promises it."""

    def __init__(self, membership: Membership, topics: Sequence[str]) -> None:
        self.topics = tuple(topics)
        self.reading = False
        self._membership = membership
        self._store = membership.store
        self._positions: dict[Partition, int] = {}  # of owned partitions, the offset to read next
        self._paused: set[Partition] = set()
        self._revoked: set[Partition] = set()
        self._turn = 0  # which partition goes first, so that a long one does not starve the others
        self._closed = False
        self._bell = asyncio.Event()
        self._store.listen(self.topics, self._bell)

    async def read(self, *, max_records: int, timeout: float) -> Sequence[Record]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        self.reading = True
        try:
            while True:
                self._check_open()
                self._bell.clear()  # before looking, so that what comes while looking rings again
                self._membership.heard(self)
                found = await self._fetch(max_records)
                left = deadline - loop.time()
                if found or left <= 0:
                    return found
                await self._wait(min(left, _GLANCE))
        finally:
            self.reading = False

    def _check_open(self) -> None:
        self._store.check_open()
        if self._closed:
            raise LogUnavailable(f"this member of the group {self._membership.name} has left")

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._bell.wait()
        except TimeoutError:
            pass

    async def _fetch(self, max_records: int) -> Sequence[Record]:
        starts = self._starts()
        if not starts:
            return []
        page = await self._store.page(starts, max_records=max_records)
        return self._deliver(page, {place.partition: start for place, start in starts})

    def _starts(self) -> list[tuple[Place, int]]:
        places = self._membership.places
        ready = [
            (places[partition], position)
            for partition, position in self._positions.items()
            if partition not in self._paused and position < self._store.end(places[partition])
        ]
        self._turn += 1
        first = self._turn % len(ready) if ready else 0
        return ready[first:] + ready[:first]

    def _deliver(self, page: Page, starts: Mapping[Partition, int]) -> Sequence[Record]:
        """Only of partitions that stayed ours, unpaused and where they were while the page was read."""
        kept = {
            partition
            for partition, start in starts.items()
            if self._positions.get(partition) == start and partition not in self._paused
        }
        self._positions |= {partition: at for partition, at in page.resume.items() if partition in kept}
        return [record for record in page.records if record.partition in kept]

    def take_over(self, owned: set[Partition]) -> None:
        """The group's new share for this member: what is new starts at the last commit."""
        gone = self._positions.keys() - owned
        self._revoked |= gone
        committed = self._membership.committed
        kept = {partition: at for partition, at in self._positions.items() if partition not in gone}
        self._positions = {partition: committed[partition] for partition in owned} | kept
        self._bell.set()

    def revoked(self) -> frozenset[Partition]:
        revoked, self._revoked = frozenset(self._revoked), set()
        return revoked

    def truncated(self) -> Mapping[Partition, int]:
        """Nothing: the sweep leaves what a group has not finished."""
        return {}

    def pause(self, partitions: Iterable[Partition]) -> None:
        self._paused.update(partitions)

    def resume(self, partitions: Iterable[Partition]) -> None:
        self._paused.difference_update(partitions)
        self._bell.set()

    async def commit(self, finished: Mapping[Partition, int]) -> None:
        mine = {partition: at for partition, at in finished.items() if self._membership.owns(self, partition)}
        if not mine:
            return
        places = self._membership.places
        by_id = {places[partition].id: at for partition, at in mine.items()}
        await self._store.writer.run(lambda transaction: transaction.commit(self._membership.name, by_id))
        self._membership.committed |= mine

    async def lag(self) -> Mapping[Partition, int]:
        places, committed = self._membership.places, self._membership.committed
        return {
            partition: self._store.end(places[partition]) - committed[partition]
            for partition in self._positions
        }

    async def close(self) -> None:
        self._closed = True
        self._store.unlisten(self.topics, self._bell)
        self._membership.leave(self)
        self._bell.set()
