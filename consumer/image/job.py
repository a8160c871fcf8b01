"""A task with all it needs, as the pages that run its steps hand it on."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Self

from consumer.blobs.copy_blobs import BlobCopier
from consumer.image.estimate import Counted
from consumer.image.subjects import Subjects
from consumer.progress import TaskControl, TaskProgress, TaskRun
from consumer.task import Task
from mesh.clock import Clock
from mesh.registry.absence import resolve_confirmed
from mesh.registry.port import Registry
from schemas.names import Reference


@dataclass(frozen=True, slots=True)
class Job:
    """One try of one task."""

    run: TaskRun
    source: Registry
    destination: Registry
    copier: BlobCopier
    subjects: Subjects
    counted: Counted
    clock: Clock
    begin: Callable[[], Awaitable[None]]  # told before the first write at the destination

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
