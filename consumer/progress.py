"""One run of a task: how far it has come (`TaskProgress`), and how others steer it (`TaskControl`)."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto

from consumer.task import Task
from mesh.errors import RegmeshError
from mesh.registry.port import Descriptor
from schemas.completions import MAX_ATTACHED
from schemas.names import Digest, Region
from schemas.rules import Resource


class ExecutionStopped(RegmeshError):
    """The task's execution was stopped: blobs under way still arrive, no further step starts."""

    code = "stopped"


class Phase(Enum):
    """Where a task is between its lane and its end."""

    QUEUED = auto()
    RUNNING = auto()
    ENDING = auto()  # its outcome is known and is being written to the log


@dataclass(slots=True)
class LeftOut:
    """What about an image was not copied, and the error to report for it: one that may end by itself counts most."""

    count: int = 0
    error: RegmeshError | None = None

    def add(self, error: RegmeshError, count: int = 1) -> None:
        """Adds `count` referrers, or one list of them, that cannot be copied because of the error."""
        self.count += count
        if self.error is None or (error.retryable and not self.error.retryable):
            self.error = error


@dataclass(slots=True)
class TaskProgress:
    """What a task has done so far, over all its attempts. Bytes are those of blobs."""

    started: datetime
    attempts: int = 1
    unanswered_write: bool = False  # a write of the tag ended without an answer, and may land late
    in_progress: bool = False  # the log says so; set before the first write at the destination
    resource: Resource | None = None
    digest: Digest | None = None
    bytes_total: int = 0
    bytes_transferred: int = 0
    bytes_from: Counter[Region] = field(default_factory=Counter)  # of those transferred, by sending region
    bytes_skipped: int = 0
    blobs_mounted: int = 0
    blobs_transferred: int = 0
    subject: Digest | None = None  # what a referrer that was pushed by itself is attached to
    attached: dict[Digest, None] = field(default_factory=dict)  # referrers copied or found at the destination
    left_out: LeftOut = field(default_factory=LeftOut)

    def start_pass(self, resource: Resource, blobs: Iterable[Descriptor]) -> None:
        """Starts the counts of one pass over an image; the bytes transferred by earlier passes stay."""
        self.resource = resource
        self.bytes_total = sum(blob.size for blob in blobs)
        self.bytes_skipped = 0
        self.start_attached()

    def start_attached(self) -> None:
        """Starts the counts of one pass over the referrers of an image."""
        self.attached, self.left_out = {}, LeftOut()

    def attach(self, referrers: Iterable[Digest]) -> None:
        """Adds referrers that the destination holds; ignores those beyond what a completion can list."""
        for digest in referrers:
            if len(self.attached) < MAX_ATTACHED:
                self.attached[digest] = None


@dataclass(slots=True)
class TaskControl:
    """Signals between a running task and the lane, the parking and the commands around it."""

    is_stopped: Callable[[], bool] = bool  # whether its execution was stopped
    yield_permit: Callable[[], AbstractAsyncContextManager[None]] = nullcontext  # others use it in the block
    superseded: asyncio.Event = field(default_factory=asyncio.Event)  # a newer task has the same target
    phase: Phase = Phase.QUEUED

    def raise_if_stopped(self) -> None:
        """Checks for a stop between two steps.

        Raises:
            ExecutionStopped: The task's execution was stopped.
        """
        if self.is_stopped():
            raise ExecutionStopped("the execution was stopped")


@dataclass(frozen=True, slots=True)
class TaskRun:
    """A task with its progress and its control, as they travel through the agent."""

    task: Task
    progress: TaskProgress
    control: TaskControl = field(default_factory=TaskControl)
