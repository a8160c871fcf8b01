"""Prefetch: a blob is copied as soon as its registry announces it, while the client still pushes the others.

It is speculative. The event completes at once, nothing is written to the log, and a failure is not retried, as the
manifest's task copies what is missing. Prefetched blobs have a budget, and those that no manifest names within an hour
are reported.
"""

import asyncio

import structlog

from consumer.blobs.copy_blobs import BlobCopier
from consumer.blobs.prefetch_ledger import PrefetchLedger
from consumer.ports import AgentPorts
from consumer.progress import TaskProgress, TaskRun
from consumer.task import Task
from mesh.errors import NotFound, RegmeshError
from mesh.registry.port import Descriptor, Registry
from mesh.rules import boundary
from schemas.completions import Side
from schemas.names import Digest, MediaType

LOG = structlog.get_logger()

_MOST_QUEUED = 1000  # blobs; more are not prefetched
_TOO_OLD_SECONDS = 600.0  # an event that waited so long is soon followed by its manifest's
_STORED_WITHIN = (
    0.05,
    0.2,
    0.5,
)  # seconds between checks, as registries announce a blob before they store it
_REPORT_EVERY = 60.0  # seconds
_BLOB = MediaType("application/octet-stream")


class Prefetcher:
    """Prefetches the blobs that are `put`, while `run` runs."""

    def __init__(
        self, ports: AgentPorts, *, copier: BlobCopier, ledger: PrefetchLedger, concurrency: int
    ) -> None:
        self._places, self._state, self._clock, self._metrics = (
            ports.places,
            ports.state,
            ports.clock,
            ports.metrics,
        )
        self._copier, self._ledger, self._concurrency = copier, ledger, concurrency
        self._queue: asyncio.Queue[Task] = asyncio.Queue(_MOST_QUEUED)

    def put(self, task: Task) -> None:
        """Queues the blob of a blob event for one destination, unless it is too old or the queue is full."""
        age = (self._clock.now() - task.event.occurred_at).total_seconds()
        if age < _TOO_OLD_SECONDS and not self._queue.full() and self._ledger.budget:
            self._queue.put_nowait(task)

    async def run(self) -> None:
        """Prefetches queued blobs and reports unnamed ones, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._concurrency):
                group.create_task(self._work(), name=f"prefetch {number}")
            while True:
                self._report_unnamed()
                await self._clock.sleep(_REPORT_EVERY)

    async def _work(self) -> None:
        while True:
            task = await self._queue.get()
            try:
                await self._prefetch(task, Digest(str(task.digest)))
            except RegmeshError as error:
                LOG.info(
                    "a blob was not prefetched", action="prefetch_failed", digest=task.digest,
                    destination=task.destination.name, error=str(error),
                )  # fmt: skip
            except Exception:  # a bug costs this one blob, not the agent
                LOG.exception("a bug prevented a prefetch", action="prefetch_broken", digest=task.digest)

    async def _prefetch(self, task: Task, digest: Digest) -> None:
        if not self._is_permitted(task):
            return
        source = self._places.registry(task.source, Side.SOURCE)
        destination = self._places.registry(task.destination, Side.DESTINATION, task.chain)
        blob_key = (task.destination.name, digest)
        if await destination.blob_size(task.destination_repository, digest) is not None:
            return
        blob = await self._describe(task, digest, source)
        if not self._ledger.start(blob_key, blob.size, self._clock.monotonic()):
            return
        try:
            run = TaskRun(task, TaskProgress(started=self._clock.now()))
            await self._copier.copy([blob], run, source, destination)
        finally:
            self._ledger.end(blob_key)
            self._metrics.prefetch_bytes.set(self._ledger.bytes_reserved)

    def _is_permitted(self, task: Task) -> bool:
        """Checks the current declarations, which may have changed while the task was queued."""
        source, destination = self._state.place(task.source.name), self._state.place(task.destination.name)
        if source is None or destination is None:
            return False
        return not boundary.prefetch_refused(self._state, source, destination)

    async def _describe(self, task: Task, digest: Digest, source: Registry) -> Descriptor:
        for pause in _STORED_WITHIN:
            if (size := await source.blob_size(task.repository, digest)) is not None:
                return Descriptor(_BLOB, digest, size)
            await self._clock.sleep(pause)
        raise NotFound(f"the source does not have {digest}", side=Side.SOURCE)

    def _report_unnamed(self) -> None:
        for place, digest, size in self._ledger.expire(self._clock.monotonic()):
            self._metrics.never_named_bytes.labels(place).inc(size)
            LOG.warning(
                "no manifest named a prefetched blob",
                action="never_named",
                place=place,
                digest=digest,
                bytes=size,
            )
        self._metrics.prefetch_bytes.set(self._ledger.bytes_reserved)
