"""Blobs: there already, or mounted, or streamed, each to a destination once at a time.

Nothing is staged: the source's stream is the destination's upload, so memory is a few chunks whatever the size.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager

from consumer.speed import Speeds
from consumer.tally import Tally
from consumer.task import Task
from mesh.metrics import Metrics
from mesh.registry.port import Descriptor, Registry
from schemas.names import Digest, PlaceName, Repository

_MOST_REMEMBERED = 200_000  # holders to mount from; a forgotten one is streamed, never lost

Cargo = tuple[PlaceName, Digest]  # a blob on its way to a place


class BlobCopier:
    """Copies blobs to the places of one region; shared by all its tasks, because they share blobs."""

    def __init__(self, *, metrics: Metrics, speeds: Speeds, blobs_per_task: int, transfers: int) -> None:
        self.metrics, self.speeds = metrics, speeds
        self.holders = Holders()
        self.turns = Turns()
        self.transfers = asyncio.Semaphore(transfers)
        self._per_task = blobs_per_task

    async def copy(
        self,
        blobs: Iterable[Descriptor],
        task: Task,
        source: Registry,
        destination: Registry,
        tally: Tally,
        *,
        resend: bool = False,
    ) -> None:
        """Bring all `blobs` to the task's destination, several at a time; the first error ends the others.

        `resend`: what the destination said it has, it does not have; believe nothing and send everything.
        `ExecutionStopped`, after the blobs that were under way.
        """
        lanes = asyncio.Semaphore(self._per_task)

        async def one(blob: Descriptor) -> None:
            async with lanes:
                if tally.is_stopped():
                    return
                await _Transfer(self, blob, task, source, destination, tally).run(resend=resend)

        await _all(one(blob) for blob in blobs)
        tally.go_on()


class Holders:
    """In which repository of a place we last saw a blob: where to mount it from."""

    def __init__(self) -> None:
        self._seen: OrderedDict[Cargo, Repository] = OrderedDict()

    def get(self, cargo: Cargo) -> Repository | None:
        return self._seen.get(cargo)

    def remember(self, cargo: Cargo, repository: Repository) -> None:
        self._seen[cargo] = repository
        self._seen.move_to_end(cargo)
        while len(self._seen) > _MOST_REMEMBERED:
            self._seen.popitem(last=False)

    def forget(self, cargo: Cargo) -> None:
        self._seen.pop(cargo, None)


class Turns:
    """One at a time for each cargo; those who waited are told so, since the work may be done by then."""

    def __init__(self) -> None:
        self._locks: dict[Cargo, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def take(self, cargo: Cargo) -> AsyncIterator[bool]:
        lock, users = self._locks.get(cargo, (asyncio.Lock(), 0))
        self._locks[cargo] = (lock, users + 1)
        try:
            async with lock:
                yield users > 0
        finally:
            lock, users = self._locks.pop(cargo)
            if users > 1:
                self._locks[cargo] = (lock, users - 1)


class _Transfer:
    """One blob of one task."""

    def __init__(
        self,
        copier: BlobCopier,
        blob: Descriptor,
        task: Task,
        source: Registry,
        destination: Registry,
        tally: Tally,
    ) -> None:
        self._copier, self._blob, self._task, self._tally = copier, blob, task, tally
        self._source, self._destination = source, destination
        self._repository = task.destination_repository
        self._cargo: Cargo = (task.destination.name, blob.digest)

    async def run(self, *, resend: bool) -> None:
        if resend:
            self._copier.holders.forget(self._cargo)
        elif await self._is_there():
            return
        async with self._copier.turns.take(self._cargo) as waited:
            if waited and await self._is_there():
                return
            async with self._copier.speeds.turn(self._task), self._copier.transfers:
                await self._stream()

    async def _is_there(self) -> bool:
        if await self._destination.blob_size(self._repository, self._blob.digest) is not None:
            self._count("present")
        elif await self._mount():
            self._tally.blobs_mounted += 1
            self._count("mounted")
        else:
            return False
        self._tally.bytes_skipped += self._blob.size
        self._copier.holders.remember(self._cargo, self._repository)
        return True

    async def _mount(self) -> bool:
        holder = self._copier.holders.get(self._cargo)
        if holder is None or holder == self._repository:
            return False
        if await self._destination.mount_blob(self._repository, self._blob.digest, holder):
            return True
        self._copier.holders.forget(self._cargo)
        return False

    async def _stream(self) -> None:
        async with self._source.read_blob(self._task.repository, self._blob) as chunks:
            await self._destination.write_blob(self._repository, self._blob, self._counted(chunks))
        self._tally.blobs_transferred += 1
        self._copier.holders.remember(self._cargo, self._repository)
        self._count("transferred")

    async def _counted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        sent = self._copier.metrics.blob_bytes.labels(self._task.source.name, self._task.destination.name)
        async for chunk in self._copier.speeds.paced(self._task, chunks):
            self._tally.bytes_transferred += len(chunk)
            self._tally.bytes_from[self._task.source.region] += len(chunk)
            sent.inc(len(chunk))
            yield chunk

    def _count(self, how: str) -> None:
        self._copier.metrics.blobs.labels(self._task.destination.name, how).inc()


async def _all(jobs: Iterable[Coroutine[None, None, None]]) -> None:
    """Run all; the first error cancels the rest and passes through as itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
