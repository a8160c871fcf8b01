"""Tasks that run or have ended: the records behind the sync log, the webhooks and the status of agents."""

from datetime import timedelta
from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.envelope import Record, Time, make_id
from schemas.names import Account, Digest, ObjectName, PlaceName, Reference, Region, Repository, Tag
from schemas.rules import Resource, TriggerKind


class Status(StrEnum):
    """The state of a task, as the sync log shows it."""

    PENDING = "Pending"
    IN_PROGRESS = "InProgress"
    SUCCEED = "Succeed"
    FAILED = "Failed"
    STOPPED = "Stopped"
    SKIPPED = "Skipped"


# Codes of tasks that end `Skipped` because they may not write: the artifact is not at the destination.
REFUSAL_CODES = frozenset({"no_grant", "not_public", "unmappable", "owned_by", "boundary", "other_content"})


class Side(StrEnum):
    """Where the cause of an error is, and so who has to act on it."""

    SOURCE = "source"
    DESTINATION = "destination"
    LOG = "log"
    MESH = "mesh"


MAX_ATTACHED = 100  # digests of referrers in one completion, so that it stays one small record

Operation = Literal["copy", "delete"]


class TaskError(BaseModel):
    """Why a task did not succeed, or why it was skipped."""

    model_config = ConfigDict(frozen=True)

    code: str
    side: Side
    message: str = Field(max_length=256)


def task_id_of(execution_id: str, destination: str, repository: str, reference: Reference | str) -> str:
    """Returns the id of an execution's task, which copies one reference of a source repository to a place."""
    return make_id("task", execution_id, destination, repository, reference)


class TaskRecord(Record):
    """What is known of a task, whether it runs, is parked or has ended."""

    task_id: str
    execution_id: str
    rule: ObjectName | None
    replica: PlaceName | None = None
    trigger: TriggerKind = "event_based"
    operation: Operation = "copy"
    resource_type: Resource | None = None  # None until the manifest is read
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
    bytes_from: dict[str, int] = Field(
        default_factory=dict
    )  # the transferred ones, by the region that sent them
    attempts: int = Field(default=1, ge=1)
    rules_rev: int = Field(ge=-1)

    @property
    def by(self) -> PlaceName:
        """Returns the name of the rule or replica that the task belongs to."""
        found = self.replica if self.replica is not None else self.rule
        assert found is not None  # each task has one of the two
        return PlaceName(found)

    @property
    def source(self) -> str:
        """Returns `place/repository:tag`, as the sync log shows it."""
        return f"{self.source_place}/{self.repository}{_suffix(self.tag, self.digest)}"

    @property
    def destination(self) -> str:
        """Returns the same for the destination."""
        return f"{self.destination_place}/{self.destination_repository}{_suffix(self.tag, self.digest)}"


class Completion(TaskRecord):
    """The end of a task. Topic `mesh.<region>.completions`, key `destination/repository`."""

    kind: ClassVar[str] = "completion"

    end_time: Time
    bytes_skipped: int = Field(default=0, ge=0)  # already at the destination
    blobs_mounted: int = Field(default=0, ge=0)
    blobs_transferred: int = Field(default=0, ge=0)
    lag_ms: int = Field(ge=0)  # from the push, by the registry's clock, to the task's end
    error: TaskError | None = None
    subject: Digest | None = None  # of a task that copied a single referrer: the manifest it refers to
    attached: tuple[Digest, ...] = Field(default=(), max_length=MAX_ATTACHED)
    """Referrers that were copied, or were at the destination already."""
    rebuilt_from: Digest | None = None
    """The digest of the source's index, where `digest` is that of an index rebuilt from parts of it."""

    @property
    def key(self) -> str:
        """Returns the key that keeps one destination repository's completions in one partition."""
        return f"{self.destination_place}/{self.destination_repository}"


class Progress(TaskRecord):
    """A running task. Topic `mesh.<region>.status`, key task id; the task's end writes a tombstone."""

    kind: ClassVar[str] = "progress"

    agent: str

    @property
    def key(self) -> str:
        """Returns the task's id."""
        return self.task_id


READY = "Ready"  # the state of a place that answers and accepts the credentials
AGENT_LIVES_FOR = timedelta(seconds=30)  # after its last heartbeat an agent counts as live


class DestinationBacklog(BaseModel):
    """What an agent has still to do for one destination, parked tasks included."""

    model_config = ConfigDict(frozen=True)

    tasks: int = Field(ge=0)
    oldest: Time | None = None  # when the oldest event happened, by its registry's clock
    bytes_left: int = Field(default=0, ge=0)  # of running tasks whose size is known


class RuleBacklog(BaseModel):
    """What an agent has still to do for one rule or replica, parked tasks included."""

    model_config = ConfigDict(frozen=True)

    tasks: int = Field(ge=0)
    oldest_push: Time | None = (
        None  # when the oldest event happened, by its registry's clock; None: all are listed
    )


MAX_RULE_BACKLOGS = 500  # in one heartbeat, so that it stays one small record


class Heartbeat(Record):
    """A sign of life of an agent. Topic `mesh.<region>.status`, key agent id, every 10 s; a clean stop deletes it."""

    kind: ClassVar[str] = "heartbeat"

    version: str = "1.1"
    agent: str
    region: Region
    rules_rev: int
    running: int = Field(ge=0)
    places: dict[str, str] = Field(default_factory=dict)  # READY or "Failed: reason" of each place it uses
    waiting: dict[str, DestinationBacklog] = Field(default_factory=dict)  # by destination
    rules: dict[str, RuleBacklog] | None = Field(default=None, exclude_if=lambda rules: rules is None)
    """Since 1.1: the backlogs with the oldest pushes, by rule or replica; None: of an agent of an older version."""
    relay: str | None = None  # the URL at which other agents may request blobs from it

    @property
    def key(self) -> str:
        """Returns the agent's id."""
        return self.agent


def _suffix(tag: Tag | None, digest: Digest | None) -> str:
    if tag is not None:
        return f":{tag}"
    return f"@{digest}" if digest is not None else ""
