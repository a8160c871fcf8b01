"""Executions: one run of a rule over what its source holds. All of it on `mesh.commands`, key source region.

control writes ExecutionStart -> a producer of the region lists -> it writes ExecutionListed; anybody ExecutionStop
"""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from schemas.completions import Operation, TaskError
from schemas.envelope import Record
from schemas.events import Surplus
from schemas.names import Digest, ObjectName, PlaceName, Region, Repository, Tag
from schemas.rules import Pattern, TriggerKind

MOST_IMAGES = 1000  # of one command: it has to stay one small record

# After these a replica is compared with its instance. Not after its fill: what it held before is not ours to judge.
_LOOKS: frozenset[TriggerKind] = frozenset({"manual", "reconcile"})


class ImageName(BaseModel):
    """One tag at the source of an execution."""

    model_config = ConfigDict(frozen=True)

    repository: Repository
    tag: Tag
    digest: Digest | None = None  # what the replica's tag is known to name, of one that is surplus there


class _Command(Record):
    execution_id: str = Field(min_length=1, max_length=128)
    region: Region  # of the rule's source

    @property
    def key(self) -> str:
        """Keeps the records of an execution in one partition, in order."""
        return str(self.region)


class ExecutionStart(_Command):
    """Run a rule: list its source and copy what its filters, and `repository` and `tag`, match."""

    kind: ClassVar[str] = "execution_start"

    rule: PlaceName  # a rule's name, or a replica's
    source: ObjectName  # of the rule as it was asked for
    destination: PlaceName | None = None  # the same; None: who asked did not say
    trigger: TriggerKind
    repository: Pattern | None = None
    tag: Pattern | None = None
    images: tuple[ImageName, ...] = Field(default=(), max_length=MOST_IMAGES)  # these alone, without listing
    dry_run: bool = False
    operation: Operation = "copy"  # delete: of these images, confirmed by a human or surplus
    surplus: Surplus | None = None  # nobody has confirmed these: a replica was found to hold them still
    rules_rev: int = Field(ge=-1)  # what control knew; a producer waits until it knows as much

    @property
    def is_whole(self) -> bool:
        """It copies all that the rule matches: what its listing does not find is not there."""
        named = self.repository is not None or self.tag is not None or bool(self.images)
        return self.operation == "copy" and not named and not self.dry_run and self.trigger in _LOOKS


class ExecutionListed(_Command):
    """The listing is over: so many events are on `mesh.<region>.bulk`."""

    kind: ClassVar[str] = "execution_listed"

    total: int = Field(ge=0)
    error: TaskError | None = None  # not all could be listed


class ExecutionStop(_Command):
    """End the execution: listing stops, waiting tasks end `Stopped`, running ones after their current blobs."""

    kind: ClassVar[str] = "execution_stop"
