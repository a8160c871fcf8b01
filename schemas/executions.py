"""Executions: one run of a rule over what its source holds. All records are on `mesh.commands`, key source region.

control: ExecutionStart -> a producer of the region lists the source: ExecutionListed. control: ExecutionStop
"""

import operator
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.completions import TaskError
from schemas.envelope import Record, Time
from schemas.events import OrphanedTagCount
from schemas.names import Digest, ObjectName, PlaceName, Region, Repository, Tag
from schemas.rules import Pattern, TriggerKind

MAX_IMAGES = 1000  # of one command, so that it stays one small record

# Triggers after which a replica is compared with its instance. Its first fill is not: it may have held other tags.
_COMPARING: frozenset[TriggerKind] = frozenset({"manual", "reconcile"})


# What an execution does. delete: `images` are deleted, as orphaned tags or after a confirmation. Since 1.2, for rules
# without `backfill`: baseline notes what the source holds and copies nothing, compare copies what it holds since then.
# A producer of an older version reads neither.
ExecutionOperation = Literal["copy", "delete", "baseline", "compare"]


class ImageName(BaseModel):
    """One tag at the source of an execution."""

    model_config = ConfigDict(frozen=True)

    repository: Repository
    tag: Tag
    digest: Digest | None = None  # of an orphaned tag: what the replica's tag is known to name


class _Command(Record):
    execution_id: str = Field(min_length=1, max_length=128)
    region: Region  # of the rule's source

    @property
    def key(self) -> str:
        """Returns the key that keeps the records of an execution in one partition, in order."""
        return str(self.region)


class ExecutionStart(_Command):
    """Starts a run of a rule: list its source and copy what its filters, `repository` and `tag` match."""

    kind: ClassVar[str] = "execution_start"

    version: str = "1.2"
    rule: PlaceName  # a rule's name, or a replica's
    source: ObjectName  # of the rule when the execution was requested
    destination: PlaceName | None = None  # the same; None = not stated
    trigger: TriggerKind
    repository: Pattern | None = None
    tag: Pattern | None = None
    images: tuple[ImageName, ...] = Field(default=(), max_length=MAX_IMAGES)  # only these, without a listing
    dry_run: bool = False
    resend: bool = Field(default=False, exclude_if=operator.not_)
    """Since 1.1: whether to copy all of an image again, though the destination says that it has it."""
    operation: ExecutionOperation = "copy"
    baseline: Time | None = Field(default=None, exclude_if=lambda baseline: baseline is None)
    """Since 1.2, of `compare`: what the source held by then, under the same digest, is older than the rule."""
    surplus: OrphanedTagCount | None = None  # of a deletion of orphaned tags that no operator has confirmed
    rules_rev: int = Field(
        ge=-1
    )  # the revision that control had applied; a producer waits until it has it too

    @property
    def is_whole(self) -> bool:
        """Returns whether it copies all that the rule matches, so that what its listing does not find is orphaned."""
        named = self.repository is not None or self.tag is not None or bool(self.images)
        return self.operation == "copy" and not named and not self.dry_run and self.trigger in _COMPARING


class ExecutionListed(_Command):
    """The end of the listing, with the number of its events on `mesh.<region>.bulk`."""

    kind: ClassVar[str] = "execution_listed"

    total: int = Field(ge=0)
    error: TaskError | None = None  # set when not all could be listed


class ExecutionStop(_Command):
    """Stops the execution: its listing, then waiting tasks at once and running tasks after their current blobs."""

    kind: ClassVar[str] = "execution_stop"
