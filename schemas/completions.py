"""How a task ended: the records that the sync log and the webhooks are made of."""

from datetime import timedelta
from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.envelope import Record, Time, make_id
from schemas.names import Account, Digest, ObjectName, PlaceName, Reference, Region, Repository, Tag
from schemas.rules import Resource, TriggerKind


class Status(StrEnum):
    PENDING = "Pending"
    IN_PROGRESS = "InProgress"
    SUCCEED = "Succeed"
    FAILED = "Failed"
    STOPPED = "Stopped"
    SKIPPED = "Skipped"


# Codes of tasks that end `Skipped` because they may not write: what they were to bring is not at the destination.
REFUSALS = frozenset({"no_grant", "not_public", "unmappable", "owned_by", "boundary", "other_content"})


class Side(StrEnum):
    """Who has to act on an error."""

    SOURCE = "source"
    DESTINATION = "destination"
    LOG = "log"
    MESH = "mesh"


MOST_ATTACHED = 100  # digests of referrers in one completion: it has to stay one small record

Operation = Literal["copy", "delete"]


class TaskError(BaseModel):
    """Why a task did not succeed; `Skipped` carries its reason here too."""

    model_config = ConfigDict(frozen=True)

    code: str
    side: Side
    message: str = Field(max_length=256)


def task_id_of(execution_id: str, destination: str, repository: str, reference: Reference | str) -> str:
    """The id of an execution's task: of the source's `repository` and what is asked for there, to a place."""
    return make_id("task", execution_id, destination, repository, reference)


class Work(Record):
    """What a task is, whether it runs or has ended."""

    task_id: str
    execution_id: str
    rule: ObjectName | None
    replica: PlaceName | None = None
    trigger: TriggerKind = "event_based"
    operation: Operation = "copy"
    resource_type: Resource | None = None  # None until the manifest was read
    account: Account
    destination_account: Account
    source_place: PlaceName
    destination_place: PlaceName
    source_region: Region
    destination_region: Region
    repository: Repository
    destination_repository: Repository
    tag: Tag | None
    digest: Digest | None
    status: Status
    start_time: Time
    bytes_total: int = Field(default=0, ge=0)
    bytes_transferred: int = Field(default=0, ge=0)
    bytes_from: dict[str, int] = Field(default_factory=dict)  # of these, by the region that sent them
    attempts: int = Field(default=1, ge=1)
    rules_rev: int = Field(ge=-1)

    @property
    def by(self) -> PlaceName:
        """The rule, or the replica, that asked for it."""
        found = self.replica if self.replica is not None else self.rule
        assert found is not None  # each task has one of the two
        return PlaceName(found)

    @property
    def source(self) -> str:
        """`instance/repository:tag`, as the sync log shows it."""
        return f"{self.source_place}/{self.repository}{_suffix(self.tag, self.digest)}"

    @property
    def destination(self) -> str:
        return f"{self.destination_place}/{self.destination_repository}{_suffix(self.tag, self.digest)}"


class Completion(Work):
    """The event that ends a task. Topic `mesh.<region>.completions`, key `destination/repository`."""

    kind: ClassVar[str] = "completion"

    end_time: Time
    bytes_skipped: int = Field(default=0, ge=0)  # already at the destination
    blobs_mounted: int = Field(default=0, ge=0)
    blobs_transferred: int = Field(default=0, ge=0)
    lag_ms: int = Field(ge=0)  # from the push, by the registry's clock, to the end of the task
    error: TaskError | None = None
    subject: Digest | None = None  # of a task that brought a referrer by itself: what that is about
    attached: tuple[Digest, ...] = Field(
        default=(), max_length=MOST_ATTACHED
    )  # referrers that came or were there
    rebuilt_from: Digest | None = (
        None  # the source's digest, where `digest` is of an index made of parts of it
    )

    @property
    def key(self) -> str:
        return f"{self.destination_place}/{self.destination_repository}"


class Progress(Work):
    """A task that runs. Topic `mesh.<region>.status`, key task id; the task's end writes a tombstone."""

    kind: ClassVar[str] = "progress"

    agent: str

    @property
    def key(self) -> str:
        return self.task_id


AGENT_LIVES_FOR = timedelta(seconds=30)  # after its last heartbeat


class Waiting(BaseModel):
    """What an agent has still to do for one destination. `oldest` is when the oldest of it happened at its registry."""

    model_config = ConfigDict(frozen=True)

    tasks: int = Field(ge=0)
    oldest: Time | None = None
    bytes_left: int = Field(default=0, ge=0)  # of tasks that run and know their size


class Heartbeat(Record):
    """An agent lives. Topic `mesh.<region>.status`, key agent id, every 10 s; a clean stop writes a tombstone."""

    kind: ClassVar[str] = "heartbeat"

    agent: str
    region: Region
    rules_rev: int
    running: int = Field(ge=0)
    places: dict[str, str] = Field(default_factory=dict)  # of the places it uses: "Ready" or "Failed: reason"
    waiting: dict[str, Waiting] = Field(default_factory=dict)  # by destination; what is parked counts too
    relay: str | None = None  # where other agents may ask it for blobs

    @property
    def key(self) -> str:
        return self.agent


def _suffix(tag: Tag | None, digest: Digest | None) -> str:
    if tag is not None:
        return f":{tag}"
    return f"@{digest}" if digest is not None else ""
