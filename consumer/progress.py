"""What a task has done so far, counted while it runs."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime

from mesh.errors import RegmeshError
from mesh.registry.port import Descriptor
from schemas.completions import MOST_ATTACHED
from schemas.names import Digest, Region
from schemas.rules import Resource


class ExecutionStopped(RegmeshError):
    """The execution was stopped: what is on its way still arrives, nothing new is begun."""

    code = "stopped"


@dataclass(slots=True)
class Tally:
    """What a task has done so far; counted over all its attempts. Bytes are of blobs."""

    started: datetime
    attempts: int = 1
    is_running: bool = False  # its turn in its lane came
    ending: bool = False  # it will do no more: how it ended is being written
    begun: bool = False  # its progress is on the log
    resource: Resource | None = None
    digest: Digest | None = None
    bytes_total: int = 0
    bytes_transferred: int = 0
    bytes_from: Counter[Region] = field(default_factory=Counter)  # of these, by the region that sent them
    bytes_skipped: int = 0
    blobs_mounted: int = 0
    blobs_transferred: int = 0
    subject: Digest | None = None  # of a task that brings a referrer by itself: what that is about
    attached: dict[Digest, None] = field(default_factory=dict)  # referrers that came or were found there
    newer: asyncio.Event = field(default_factory=asyncio.Event)  # set when a newer task has the same target
    aside: Callable[[], AbstractAsyncContextManager[None]] = nullcontext  # its turn is another's in the block
    is_stopped: Callable[[], bool] = bool  # True once its execution was stopped

    def begin_pass(self, resource: Resource, blobs: Iterable[Descriptor]) -> None:
        """A pass over an image starts: what it finds at the destination is counted anew, what was sent stays sent."""
        self.resource = resource
        self.bytes_total = sum(blob.size for blob in blobs)
        self.bytes_skipped = 0
        self.attached = {}

    def attach(self, referrers: Iterable[Digest]) -> None:
        """The destination has these about the image; of more than a completion holds the rest is left out."""
        for digest in referrers:
            if len(self.attached) < MOST_ATTACHED:
                self.attached[digest] = None

    def go_on(self) -> None:
        """Asked before each next step; raises `ExecutionStopped`."""
        if self.is_stopped():
            raise ExecutionStopped("the execution was stopped")
