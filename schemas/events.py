"""What happened at a registry, as said by a notification or found by a listing."""

from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from schemas.envelope import Record, Time
from schemas.names import Digest, MediaType, PlaceName, Region, Repository, Tag
from schemas.rules import TriggerKind


class Action(StrEnum):
    MANIFEST_PUSH = "manifest_push"
    BLOB_PUSH = "blob_push"
    BLOB_MOUNT = "blob_mount"
    MANIFEST_DELETE = "manifest_delete"
    TAG_DELETE = "tag_delete"
    REPOSITORY_DELETE = "repository_delete"


class Cause(StrEnum):
    """How we learnt of it."""

    NOTIFICATION = "notification"  # the registry told the intake
    ARRIVAL = "arrival"  # an agent of ours put it there
    LISTING = "listing"  # an execution found it at the registry


class Surplus(BaseModel):
    """How much a replica holds that its instance was found to hold no more. Counts of tags."""

    model_config = ConfigDict(frozen=True)

    tags: int = Field(ge=1)
    of: int = Field(ge=1)  # these, and those that the instance does hold


class PartOf(BaseModel):
    """The execution that a listed event belongs to: of all rules only this one looks at it."""

    model_config = ConfigDict(frozen=True)

    execution_id: str
    rule: PlaceName  # a rule's name, or a replica's
    trigger: TriggerKind
    dry_run: bool = False  # plan and tell, write nothing
    surplus: Surplus | None = None  # of a deletion that nobody announced


class Event(Record):
    """One change at one place. Topic `mesh.<region>.events`, from listings `.bulk`; key `place/repository`.

    It is a hint: what is copied is what the registry holds. `origin` is the place where the content was
    first pushed and `hops` how many rules carried it here.
    """

    kind: ClassVar[str] = "event"

    action: Action
    cause: Cause = Cause.NOTIFICATION
    place: PlaceName
    region: Region
    repository: Repository
    tag: Tag | None = None
    digest: Digest | None = None
    media_type: MediaType | None = None
    size: int | None = Field(default=None, ge=0)
    from_repository: Repository | None = None  # of a mount
    actor: str | None = Field(default=None, max_length=256)
    occurred_at: Time  # the registry's own clock: lag is measured from here
    rules_rev: int = Field(ge=-1)  # the state the intake had applied; an agent waits until it knows as much
    part_of: PartOf | None = None  # None: it happened, and every rule may want it
    has_referrers_tag: bool | None = None  # of a listing: it saw the tag that lists what is about `digest`

    @property
    def key(self) -> str:
        """Keeps one repository's events in one partition, in order."""
        return f"{self.place}/{self.repository}"


class TagState(Record):
    """Which digest a place holds under a tag. Topic `mesh.<region>.tags`, key `place/repository:tag`.

    A tombstone says that the tag is gone. Written by intake (what a registry announced) and by agents (what
    they put and saw by HEAD).
    """

    kind: ClassVar[str] = "tag"

    place: PlaceName
    repository: Repository
    tag: Tag
    digest: Digest
    written_by: Cause
    tag_version: int = Field(ge=0)  # microseconds since 1970 at the writer: the larger is the later

    @property
    def key(self) -> str:
        return f"{self.place}/{self.repository}:{self.tag}"
