"""One attempt of a task together with what its steps use."""

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

from consumer.blobs.copy_blobs import BlobCopier
from consumer.image.admission import Admission, Stage
from consumer.progress import TaskControl, TaskProgress, TaskRun
from consumer.settings import ImageLimits
from consumer.task import Task
from mesh.clock import Clock
from mesh.registry.absence import resolve_confirmed
from mesh.registry.port import Registry
from mesh.retry import until_log_available
from schemas.names import Digest, PlaceName, Reference


@dataclass(frozen=True, slots=True)
class Services:
    """What all jobs of an agent share."""

    copier: BlobCopier
    admission: Admission
    mark_in_progress: Callable[[TaskRun], Awaitable[None]]  # on the log
    clock: Clock
    limits: ImageLimits
    subjects: MutableMapping[Digest, Digest | None]  # what untagged manifests are about; a cache
    counted: MutableMapping[tuple[str, PlaceName, Digest], str]
    """Which task of a dry run counted a blob, by execution and destination; a cache, so some count twice."""


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt of one task."""

    run: TaskRun
    source: Registry
    destination: Registry
    services: Services

    @property
    def task(self) -> Task:
        """Returns the task of this run."""
        return self.run.task

    @property
    def progress(self) -> TaskProgress:
        """Returns the progress of this run."""
        return self.run.progress

    @property
    def control(self) -> TaskControl:
        """Returns the control of this run."""
        return self.run.control

    @property
    def clock(self) -> Clock:
        """Returns the agent's clock."""
        return self.services.clock

    async def source_has(self, reference: Reference) -> bool:
        """Returns whether the source has the manifest; False only when the registry itself says so, twice.

        Raises:
            AbsenceUnconfirmed: A 404 that may be a proxy's.
            RegistryError: The source could not be asked.
        """
        found = await resolve_confirmed(self.source, self.task.repository, reference, clock=self.clock)
        return found is not None

    def of(self, task: Task) -> Self:
        """Returns the same job for another task, counted in the same progress."""
        return replace(self, run=replace(self.run, task=task))

    async def admit(self, stage: Stage) -> None:
        """Checks that the task may go on to `stage`.

        Raises:
            NotAdmitted: It may not.
        """
        await self.services.admission.check(self.run, stage)

    async def before_write(self, stage: Stage = Stage.WRITE) -> None:
        """Checks that the task may write now, and marks it in progress on the log before its first write.

        Raises:
            NotAdmitted: It may not write.
        """
        await self.admit(stage)
        if not self.progress.in_progress:
            mark = partial(self.services.mark_in_progress, self.run)
            await until_log_available(mark, self.clock)
            self.progress.in_progress = True
