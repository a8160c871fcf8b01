"""Copies blobs: one that exists is skipped, one in another repository is mounted, any other is streamed.

Each blob is sent to a destination once at a time. Nothing is staged: the source's stream is the destination's upload,
so memory is a few chunks whatever the size.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

from cachetools import LRUCache

from consumer.blobs.blob_source import BlobSources, ImageSources, SourceStream
from consumer.blobs.prefetch_ledger import PrefetchLedger
from consumer.blobs.relay.incoming import Incoming
from consumer.blobs.relay.tee import Tee
from consumer.blobs.throttle import Throttle
from consumer.progress import TaskRun
from consumer.task import BlobKey, Task
from mesh.concurrency import KeyedLock, all_of
from mesh.errors import ContentMismatch, RegistryError
from mesh.metrics import Metrics
from mesh.registry.port import Descriptor, Registry, Upload
from schemas.names import Repository

_MOST_MOUNT_SOURCES = 200_000  # a blob without one is streamed


class TransferPermits:
    """Limits how many blobs an agent transfers at once, and tasks found by listings to half of them."""

    def __init__(self, transfers: int) -> None:
        self._all = asyncio.Semaphore(transfers)
        self._bulk = asyncio.Semaphore(max(1, transfers // 2))

    @asynccontextmanager
    async def hold(self, task: Task) -> AsyncIterator[None]:
        """Holds one permit."""
        async with AsyncExitStack() as stack:
            if task.is_bulk:
                await stack.enter_async_context(self._bulk)
            await stack.enter_async_context(self._all)
            yield


@dataclass(frozen=True, slots=True)
class TransferPorts:
    """What all transfers of one agent share.

    `mount_sources` has the repository in which a place's blob was seen last, to mount it from. `has_other_agents`
    returns whether other agents run in this region.
    """

    sources: BlobSources
    incoming: Incoming
    ledger: PrefetchLedger
    throttle: Throttle
    permits: TransferPermits
    metrics: Metrics
    has_other_agents: Callable[[], bool]
    mount_sources: LRUCache[BlobKey, Repository] = field(
        default_factory=lambda: LRUCache(_MOST_MOUNT_SOURCES)
    )
    locks: KeyedLock[BlobKey] = field(default_factory=KeyedLock)


class BlobCopier:
    """Copies blobs to the places of one region. All its tasks share it, as they share blobs."""

    def __init__(self, ports: TransferPorts, *, blobs_per_task: int) -> None:
        self._ports, self._blobs_per_task = ports, blobs_per_task
        self.locks = ports.locks  # also serialises writes of one subject's list of referrers

    async def copy(
        self,
        blobs: Iterable[Descriptor],
        run: TaskRun,
        source: Registry,
        destination: Registry,
        *,
        resend: bool = False,
    ) -> None:
        """Copies all `blobs` to the task's destination, several at a time. The first error cancels the others.

        Args:
            resend: The destination lacks blobs that it claimed to have, so all are sent without asking it.

        Raises:
            ExecutionStopped: The execution was stopped; blobs in transfer were completed before.
            RegistryError: A blob could not be copied.
        """
        permits, wanted, place = (
            asyncio.Semaphore(self._blobs_per_task),
            tuple(blobs),
            run.task.destination.name,
        )
        image_sources = ImageSources()
        if wanted:
            image_sources = await self._ports.sources.of_image(run.task, run.progress.digest)

        async def copy_one(blob: Descriptor) -> None:
            async with permits:
                if run.control.is_stopped():
                    return
                transfer = _Transfer(self._ports, blob, run, source, destination, image_sources)
                await transfer.run(resend=resend)
                settle((place, blob.digest))

        with self._ports.incoming.expecting((place, blob.digest) for blob in wanted) as settle:
            await all_of(copy_one(blob) for blob in wanted)
        run.control.raise_if_stopped()


class _Transfer:
    """The transfer of one blob of one task."""

    def __init__(
        self,
        ports: TransferPorts,
        blob: Descriptor,
        run: TaskRun,
        source: Registry,
        destination: Registry,
        image_sources: ImageSources,
    ) -> None:
        self._ports, self._blob, self._task, self._progress = ports, blob, run.task, run.progress
        self._source, self._destination, self._image_sources = source, destination, image_sources
        self._repository = run.task.destination_repository
        self._blob_key: BlobKey = (run.task.destination.name, blob.digest)

    async def run(self, *, resend: bool) -> None:
        check_after_lock = opens_upload = False
        if resend:
            self._ports.mount_sources.pop(self._blob_key, None)
        elif self._is_being_prefetched():
            check_after_lock = True
        elif not self._is_probably_there():
            opens_upload = True
        elif await self._is_there():
            return
        async with self._ports.locks.hold(self._blob_key) as waited:
            if (waited or check_after_lock) and await self._is_there():
                return
            upload = None
            if opens_upload:  # one request asks whether the blob exists, and opens an upload if it does not
                upload = await self._destination.begin_upload(self._repository, self._blob.digest)
            if opens_upload and upload is None:
                self._record_found("present")
            else:
                await self._send(upload)

    def _is_probably_there(self) -> bool:
        """Returns whether the place had the blob before or is receiving it, so that opening an upload is wasteful."""
        return self._blob_key in self._ports.mount_sources or self._ports.locks.is_held(self._blob_key)

    async def _is_there(self) -> bool:
        if await self._destination_has_it():
            self._record_found("present")
        elif await self._mount():
            self._progress.blobs_mounted += 1
            self._record_found("mounted")
        else:
            return False
        return True

    def _record_found(self, how: str) -> None:
        self._count(how)
        self._ports.mount_sources[self._blob_key] = self._repository
        if not self._claim_prefetched():
            self._progress.bytes_skipped += self._blob.size

    def _is_being_prefetched(self) -> bool:
        """Returns whether to wait for a prefetch: the region that sends the blob is known when it ends."""
        return not self._task.is_prefetch and self._ports.ledger.is_in_progress(self._blob_key)

    def _claim_prefetched(self) -> bool:
        """Counts a prefetched blob as transferred by this task, the first one that names it."""
        sent = None if self._task.is_prefetch else self._ports.ledger.claim(self._blob_key)
        if sent is None:
            return False
        self._progress.bytes_transferred += self._blob.size
        self._progress.bytes_from.update(sent)
        return True

    async def _destination_has_it(self) -> bool:
        return await self._destination.blob_size(self._repository, self._blob.digest) is not None

    async def _mount(self) -> bool:
        mount_source = self._ports.mount_sources.get(self._blob_key)
        if mount_source is None or mount_source == self._repository:
            return False
        if await self._destination.mount_blob(self._repository, self._blob.digest, mount_source):
            return True
        self._ports.mount_sources.pop(self._blob_key, None)
        return False

    async def _send(self, upload: Upload | None) -> None:
        """Streams the blob from the nearest holder, and again from the source when a holder sent wrong bytes."""
        sources, args = self._ports.sources, (self._blob, self._task, self._source)
        async with self._cancelling_unused(upload) as uploads, self._ports.throttle.permit(self._task):
            stream = sources.stream(*args, self._image_sources)
            try:
                await self._write(stream, uploads)
            except ContentMismatch:
                if not stream.is_shared:
                    raise
                await self._write(sources.origin_stream(*args), uploads)
        self._progress.blobs_transferred += 1
        self._ports.mount_sources[self._blob_key] = self._repository
        self._count("transferred")

    @asynccontextmanager
    async def _cancelling_unused(self, upload: Upload | None) -> AsyncIterator[list[Upload]]:
        """Cancels the upload at the end of the block, unless a write has taken it from the list."""
        uploads = [upload] if upload is not None else []
        try:
            yield uploads
        finally:
            for unused in uploads:
                await self._destination.cancel_upload(self._repository, unused)

    async def _write(self, stream: SourceStream, uploads: list[Upload]) -> None:
        before = self._progress.bytes_from.copy()
        async with stream, self._ports.permits.hold(self._task):
            await stream.open()
            with self._ports.incoming.receiving(self._blob_key, self._blob.size) as tee:
                chunks = self._counted(stream, tee)
                upload = uploads.pop() if uploads else None
                await self._destination.write_blob(self._repository, self._blob, chunks, upload)
        if self._task.is_prefetch:
            self._ports.ledger.complete(self._blob_key, self._progress.bytes_from - before)

    async def _counted(self, stream: SourceStream, tee: Tee) -> AsyncIterator[bytes]:
        sent = self._ports.metrics.blob_bytes
        async for chunk in self._ports.throttle.throttled(self._task, stream):
            self._progress.bytes_transferred += len(chunk)
            self._progress.bytes_from[stream.region] += len(chunk)
            sent.labels(stream.name, self._task.destination.name).inc(len(chunk))
            tee.put(chunk)
            yield chunk
        with suppress(RegistryError):  # only for a metric, so it must not fail the upload
            if self._ports.has_other_agents() and await self._destination_has_it():
                self._count("twice")

    def _count(self, how: str) -> None:
        self._ports.metrics.blobs.labels(self._task.destination.name, how).inc()
