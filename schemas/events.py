"""Changes at a registry, as a notification announced them or a listing found them."""

import operator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from schemas.envelope import Record, Time
from schemas.names import Digest, MediaType, PlaceName, Region, Repository, Tag
from schemas.rules import TriggerKind

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Action(StrEnum):
    """What happened."""

    MANIFEST_PUSH = "manifest_push"
    BLOB_PUSH = "blob_push"
    BLOB_MOUNT = "blob_mount"
    MANIFEST_DELETE = "manifest_delete"
    TAG_DELETE = "tag_delete"
    REPOSITORY_DELETE = "repository_delete"


class Cause(StrEnum):
    """How the mesh learnt of it."""

    NOTIFICATION = "notification"  # the registry notified the intake
    ARRIVAL = "arrival"  # an agent wrote it
    LISTING = "listing"  # an execution found it at the registry


class OrphanedTagCount(BaseModel):
    """How many tags a replica holds that its instance was found to hold no more."""

    model_config = ConfigDict(frozen=True)

    tags: int = Field(ge=1)
    of: int = Field(ge=1)  # the orphaned tags and those that the instance holds


class PartOf(BaseModel):
    """The execution that a listed event belongs to. Only the execution's rule is checked for it."""

    model_config = ConfigDict(frozen=True)

    execution_id: str
    rule: PlaceName  # a rule's name, or a replica's
    trigger: TriggerKind
    dry_run: bool = False  # plan and report, write nothing
    resend: bool = Field(default=False, exclude_if=operator.not_)
    """Since 1.1: whether to copy all again, though the destination says that it has it."""
    surplus: OrphanedTagCount | None = None  # of a deletion that prunes an orphaned tag


class Event(Record):
    """One change at one place. Topic `mesh.<region>.events`, from listings `.bulk`; key `place/repository`.

    It is a hint: what is copied is what the registry holds. `origin` is the place where the content was first pushed,
    and `hops` the number of rules that copied it here.
    """

    kind: ClassVar[str] = "event"

    version: str = "1.1"
    action: Action
    cause: Cause = Cause.NOTIFICATION
    place: PlaceName
    region: Region
    repository: Repository
    tag: Tag | None = None
    digest: Digest | None = None
    media_type: MediaType | None = None
    size: int | None = Field(default=None, ge=0)
    from_repository: Repository | None = None  # the source of a mount
    actor: str | None = Field(default=None, max_length=256)
    occurred_at: Time  # by the registry's clock; lag is measured from here
    rules_rev: int = Field(
        ge=-1
    )  # the revision that the intake had applied; agents wait until they have it too
    part_of: PartOf | None = None  # None = the change just happened, and all rules are checked
    has_referrers_tag: bool | None = (
        None  # whether a listing saw the fallback tag with the referrers of `digest`
    )

    @property
    def key(self) -> str:
        """Returns the key that keeps one repository's events in one partition, in order."""
        return f"{self.place}/{self.repository}"


def tag_version_at(time: datetime) -> int:
    """Returns the version of a tag's record that was true at a time: microseconds since 1970."""
    return max(0, (time - _EPOCH) // timedelta(microseconds=1))


class TagState(Record):
    """Which digest a place holds under a tag. Topic `mesh.<region>.tags`, key `place/repository:tag`.

    A tombstone means that the tag was deleted. The intake writes what a registry announced, agents what they wrote
    or saw by HEAD.
    """

    kind: ClassVar[str] = "tag"

    place: PlaceName
    repository: Repository
    tag: Tag
    digest: Digest
    written_by: Cause
    tag_version: int = Field(ge=0)  # microseconds since 1970 by the writer's clock; the larger one is newer

    @property
    def key(self) -> str:
        """Returns `place/repository:tag`."""
        return f"{self.place}/{self.repository}:{self.tag}"
