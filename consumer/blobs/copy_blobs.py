"""Blobs: there already, or mounted, or streamed, each to a destination once at a time.

Nothing is staged: the source's stream is the destination's upload, so memory is a few chunks whatever the size.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from consumer.blobs.blob_source import BlobSources, ImageSources
from consumer.blobs.prefetched import PrefetchedBlobs
from consumer.blobs.relay.incoming import Incoming
from consumer.blobs.relay.tee import Tee
from consumer.blobs.source_stream import SourceStream
from consumer.blobs.throttle import Speeds
from consumer.progress import TaskRun
from consumer.task import BlobKey, Task
from mesh.concurrency import all_of
from mesh.errors import ContentMismatch, RegistryError
from mesh.metrics import Metrics
from mesh.registry.port import Descriptor, Registry, Upload
from schemas.names import Repository

_MOST_REMEMBERED = 200_000  # holders to mount from; a forgotten one is streamed, never lost


class BlobCopier:
    """Copies blobs to the places of one region; shared by all its tasks, because they share blobs."""

    def __init__(
        self,
        *,
        sources: BlobSources,
        incoming: Incoming,
        brought: PrefetchedBlobs,
        others_here: Callable[[], bool],
        metrics: Metrics,
        speeds: Speeds,
        blobs_per_task: int,
        transfers: int,
    ) -> None:
        self.sources, self.incoming, self.brought = sources, incoming, brought
        self.metrics, self.speeds, self.others_here = metrics, speeds, others_here
        self.holders = Holders()
        self.turns = KeyedLock()
        self._transfers = asyncio.Semaphore(transfers)
        self._of_listings = asyncio.Semaphore(
            max(1, transfers // 2)
        )  # the rest is there for what happens now
        self._per_task = blobs_per_task

    async def copy(
        self,
        blobs: Iterable[Descriptor],
        run: TaskRun,
        source: Registry,
        destination: Registry,
        *,
        resend: bool = False,
    ) -> None:
        """Bring all `blobs` to the task's destination, several at a time; the first error ends the others.

        `resend`: what the destination said it has, it does not have; believe nothing and send everything.
        `ExecutionStopped`, after the blobs that were under way.
        """
        lanes, wanted, place = asyncio.Semaphore(self._per_task), tuple(blobs), run.task.destination.name
        ways = await self.sources.ways(run.task, run.progress.digest) if wanted else ImageSources()

        async def one(blob: Descriptor) -> None:
            async with lanes:
                if run.control.is_stopped():
                    return
                await _Transfer(self, blob, run, source, destination, ways).run(resend=resend)
                settled((place, blob.digest))

        with self.incoming.expected((place, blob.digest) for blob in wanted) as settled:
            await all_of(one(blob) for blob in wanted)
        run.control.raise_if_stopped()

    @asynccontextmanager
    async def permit(self, task: Task) -> AsyncIterator[None]:
        """One of all transfers; what a listing found gets half of them at the most."""
        async with AsyncExitStack() as stack:
            if task.is_bulk:
                await stack.enter_async_context(self._of_listings)
            await stack.enter_async_context(self._transfers)
            yield


class Holders:
    """In which repository of a place we last saw a blob: where to mount it from."""

    def __init__(self) -> None:
        self._seen: OrderedDict[BlobKey, Repository] = OrderedDict()

    def get(self, blob_key: BlobKey) -> Repository | None:
        return self._seen.get(blob_key)

    def remember(self, blob_key: BlobKey, repository: Repository) -> None:
        self._seen[blob_key] = repository
        self._seen.move_to_end(blob_key)
        while len(self._seen) > _MOST_REMEMBERED:
            self._seen.popitem(last=False)

    def forget(self, blob_key: BlobKey) -> None:
        self._seen.pop(blob_key, None)


class KeyedLock:
    """One at a time for each cargo; those who waited are told so, since the work may be done by then."""

    def __init__(self) -> None:
        self._locks: dict[BlobKey, tuple[asyncio.Lock, int]] = {}

    def is_taken(self, blob_key: BlobKey) -> bool:
        return blob_key in self._locks

    @asynccontextmanager
    async def take(self, blob_key: BlobKey) -> AsyncIterator[bool]:
        lock, users = self._locks.get(blob_key, (asyncio.Lock(), 0))
        self._locks[blob_key] = (lock, users + 1)
        try:
            async with lock:
                yield users > 0
        finally:
            lock, users = self._locks.pop(blob_key)
            if users > 1:
                self._locks[blob_key] = (lock, users - 1)


class _Transfer:
    """One blob of one task."""

    def __init__(
        self,
        copier: BlobCopier,
        blob: Descriptor,
        run: TaskRun,
        source: Registry,
        destination: Registry,
        ways: ImageSources,
    ) -> None:
        self._copier, self._blob, self._task, self._progress = copier, blob, run.task, run.progress
        self._ways = ways
        self._source, self._destination = source, destination
        self._repository = run.task.destination_repository
        self._blob_key: BlobKey = (run.task.destination.name, blob.digest)

    async def run(self, *, resend: bool) -> None:
        is_unseen = begins = False
        if resend:
            self._copier.holders.forget(self._blob_key)
        elif self._is_being_prefetched():
            is_unseen = True
        elif not self._has_others():
            begins = True
        elif await self._is_there():
            return
        async with self._copier.turns.take(self._blob_key) as waited:
            if (waited or is_unseen) and await self._is_there():
                return
            upload = await self._begin() if begins else None
            if begins and upload is None:
                self._found("present")
            else:
                await self._bring(upload)

    async def _begin(self) -> Upload | None:
        """Nobody has it, as far as we know: one question whether it is there all the same, and where to send it."""
        return await self._destination.begin_upload(self._repository, self._blob.digest)

    def _has_others(self) -> bool:
        """It was seen at the destination before, or is being sent there: then an upload would often be for nothing."""
        return self._copier.holders.get(self._blob_key) is not None or self._copier.turns.is_taken(
            self._blob_key
        )

    async def _is_there(self) -> bool:
        if await self._has_it():
            self._found("present")
        elif await self._mount():
            self._progress.blobs_mounted += 1
            self._found("mounted")
        else:
            return False
        return True

    def _found(self, how: str) -> None:
        self._count(how)
        self._copier.holders.remember(self._blob_key, self._repository)
        if not self._was_prefetched():
            self._progress.bytes_skipped += self._blob.size

    def _is_being_prefetched(self) -> bool:
        """Then it is asked for when it has come: before, nobody knows yet who sent it."""
        return not self._task.is_prefetch and self._copier.brought.is_coming(self._blob_key)

    def _was_prefetched(self) -> bool:
        """Then it was sent for this task, the first that names it, and counts as that."""
        sent = None if self._task.is_prefetch else self._copier.brought.claim(self._blob_key)
        if sent is None:
            return False
        self._progress.bytes_transferred += self._blob.size
        self._progress.bytes_from.update(sent)
        return True

    async def _has_it(self) -> bool:
        return await self._destination.blob_size(self._repository, self._blob.digest) is not None

    async def _mount(self) -> bool:
        holder = self._copier.holders.get(self._blob_key)
        if holder is None or holder == self._repository:
            return False
        if await self._destination.mount_blob(self._repository, self._blob.digest, holder):
            return True
        self._copier.holders.forget(self._blob_key)
        return False

    async def _bring(self, upload: Upload | None) -> None:
        """From whoever is nearest; once more from the source alone when another one sent something else."""
        sources, args = self._copier.sources, (self._blob, self._task, self._source)
        async with self._cancelled_unless_written(upload) as uploads, self._copier.speeds.turn(self._task):
            supply = sources.supply(*args, self._ways)
            try:
                await self._stream(supply, uploads)
            except ContentMismatch:
                if not supply.is_shared:
                    raise
                await self._stream(sources.from_origin(*args), uploads)
        self._progress.blobs_transferred += 1
        self._copier.holders.remember(self._blob_key, self._repository)
        self._count("transferred")

    @asynccontextmanager
    async def _cancelled_unless_written(self, upload: Upload | None) -> AsyncIterator[list[Upload]]:
        """To be taken from the list by who writes it."""
        uploads = [upload] if upload is not None else []
        try:
            yield uploads
        finally:
            for left in uploads:
                await self._destination.cancel_upload(self._repository, left)

    async def _stream(self, supply: SourceStream, uploads: list[Upload]) -> None:
        before = self._progress.bytes_from.copy()
        async with supply, self._copier.permit(self._task):
            await supply.open()
            with self._copier.incoming.coming(self._blob_key, self._blob.size) as tee:
                chunks = self._counted(supply, tee)
                upload = uploads.pop() if uploads else None
                await self._destination.write_blob(self._repository, self._blob, chunks, upload)
        if self._task.is_prefetch:
            self._copier.brought.came(self._blob_key, self._progress.bytes_from - before)

    async def _counted(self, supply: SourceStream, tee: Tee) -> AsyncIterator[bytes]:
        sent = self._copier.metrics.blob_bytes
        async for chunk in self._copier.speeds.paced(self._task, supply):
            self._progress.bytes_transferred += len(chunk)
            self._progress.bytes_from[supply.region] += len(chunk)
            sent.labels(supply.name, self._task.destination.name).inc(len(chunk))
            tee.put(chunk)
            yield chunk
        with suppress(RegistryError):  # this is for a count alone, and ends no upload
            if self._copier.others_here() and await self._has_it():
                self._count("twice")

    def _count(self, how: str) -> None:
        self._copier.metrics.blobs.labels(self._task.destination.name, how).inc()
