"""Layers ahead: a blob is on its way as soon as its registry announces it, while the client still pushes the others.

It is speculation. The event is finished at once, nothing of it is written to the log, what fails is not tried again:
the manifest brings what is missing. What comes ahead has a budget; what no manifest names within an hour is told.
"""

import asyncio

import structlog

from consumer.blobs.copy_blobs import BlobCopier
from consumer.blobs.prefetched import PrefetchedBlobs
from consumer.places import Places
from consumer.progress import TaskProgress, TaskRun
from consumer.task import Task
from mesh.clock import Clock
from mesh.errors import NotFound, RegmeshError
from mesh.metrics import Metrics
from mesh.registry.port import Descriptor, Registry
from mesh.rules import boundary
from mesh.rules.state import MeshState
from schemas.completions import Side
from schemas.names import Digest, MediaType

LOG = structlog.get_logger()

_MOST_WAITING = 1000  # blobs; more than that are not brought ahead
_TOO_OLD_SECONDS = 600.0  # an event that waited so long: its manifest's is right behind it
_STORED_WITHIN = (0.05, 0.2, 0.5)  # seconds between looks: registries announce a blob before they store it
_LOOK_EVERY = 60.0  # seconds
_BLOB = MediaType("application/octet-stream")


class Prefetch:
    """`put` blobs while `run` runs."""

    def __init__(
        self,
        *,
        copier: BlobCopier,
        brought: PrefetchedBlobs,
        places: Places,
        state: MeshState,
        at_once: int,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._copier, self._prefetched, self._places, self._state = copier, brought, places, state
        self._at_once, self._clock, self._metrics = at_once, clock, metrics
        self._waiting: asyncio.Queue[Task] = asyncio.Queue(_MOST_WAITING)

    def put(self, task: Task) -> None:
        """A blob of a blob's event, to one place."""
        age = (self._clock.now() - task.event.occurred_at).total_seconds()
        if age < _TOO_OLD_SECONDS and not self._waiting.full() and self._prefetched.budget:
            self._waiting.put_nowait(task)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self._at_once):
                group.create_task(self._work(), name=f"layers ahead {number}")
            while True:
                self._tell()
                await self._clock.sleep(_LOOK_EVERY)

    async def _work(self) -> None:
        while True:
            task = await self._waiting.get()
            try:
                await self._bring(task, Digest(str(task.digest)))
            except RegmeshError as error:
                LOG.info(
                    "a blob did not come ahead", action="prefetch_failed", digest=task.digest,
                    destination=task.destination.name, error=str(error),
                )  # fmt: skip
            except Exception:  # as of a task: a mistake of ours costs the one blob, not the agent
                LOG.exception(
                    "a mistake of ours kept a blob back", action="prefetch_broken", digest=task.digest
                )

    async def _bring(self, task: Task, digest: Digest) -> None:
        if not self._may_come(task):
            return
        source = self._places.registry(task.source, Side.SOURCE)
        destination = self._places.registry(task.destination, Side.DESTINATION, task.chain)
        blob_key = (task.destination.name, digest)
        if await destination.blob_size(task.destination_repository, digest) is not None:
            return
        blob = await self._described(task, digest, source)
        if not self._prefetched.begin(blob_key, blob.size, self._clock.monotonic()):
            return
        try:
            run = TaskRun(task, TaskProgress(started=self._clock.now()))
            await self._copier.copy([blob], run, source, destination)
        finally:
            self._prefetched.end(blob_key)
            self._metrics.prefetch_bytes.set(self._prefetched.bytes_waiting)

    def _may_come(self, task: Task) -> bool:
        """As things are declared now: it may have waited for its turn."""
        source, destination = self._state.place(task.source.name), self._state.place(task.destination.name)
        if source is None or destination is None:
            return False
        return not boundary.prefetch_refused(self._state, source, destination)

    async def _described(self, task: Task, digest: Digest, source: Registry) -> Descriptor:
        for pause in _STORED_WITHIN:
            if (size := await source.blob_size(task.repository, digest)) is not None:
                return Descriptor(_BLOB, digest, size)
            await self._clock.sleep(pause)
        raise NotFound(f"the source does not have {digest}", side=Side.SOURCE)

    def _tell(self) -> None:
        for place, digest, size in self._prefetched.never_named(self._clock.monotonic()):
            self._metrics.never_named_bytes.labels(place).inc(size)
            LOG.warning(
                "a blob came ahead, and no manifest named it", action="never_named", place=place, digest=digest,
                bytes=size,
            )  # fmt: skip
        self._metrics.prefetch_bytes.set(self._prefetched.bytes_waiting)
