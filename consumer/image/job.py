"""A task with all it needs, as the pages that run its steps hand it on."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from consumer.blobs.copy_blobs import BlobCopier
from consumer.image.estimate import Counted
from consumer.image.subjects import Subjects
from consumer.progress import Tally
from consumer.task import Task
from mesh.clock import Clock
from mesh.registry.port import Registry


@dataclass(frozen=True, slots=True)
class Job:
    """One try of one task."""

    task: Task
    source: Registry
    destination: Registry
    copier: BlobCopier
    tally: Tally
    subjects: Subjects
    counted: Counted
    clock: Clock
    begin: Callable[[], Awaitable[None]]  # told before the first write at the destination
