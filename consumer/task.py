"""A task (one artifact to one destination) and its outcome: the values that the steps pass to each other."""

from dataclasses import dataclass

from mesh.errors import RegmeshError
from mesh.registry.port import Chain
from mesh.registry.referrers import subject_named
from mesh.rules.matching.compiled_rule import CompiledRule
from schemas.completions import Operation, Side, Status, TaskError, task_id_of
from schemas.envelope import MAX_HOPS, make_id
from schemas.events import Action, Event
from schemas.names import Digest, PlaceName, Reference, Repository, Tag
from schemas.rules import Rule, TriggerKind
from schemas.topology import Place

BlobKey = tuple[PlaceName, Digest]  # a blob at a place
Target = tuple[str, ...]  # what a task writes

FILLS = frozenset[TriggerKind](
    {"backfill", "reconcile"}
)  # triggers that compare a replica's whole instance unasked


def target_of(
    rule: str, place: PlaceName, repository: Repository, destination_repository: Repository, reference: str
) -> Target:
    """Returns the key under which a newer task supersedes an older one.

    Both repositories are in it, as a mapping may bring two under one name.
    """
    return (rule, place, repository, destination_repository, reference)


@dataclass(frozen=True, slots=True)
class Task:
    """One tag, or one untagged manifest, from the place where it was pushed to one destination."""

    event: Event
    compiled: CompiledRule
    source: Place
    destination: Place
    repository: Repository
    destination_repository: Repository
    tag: Tag | None  # None: a push by digest alone
    digest: Digest | None  # None: the registry did not report it; the source's tag names it
    rules_rev: int  # of the rules that matched it
    operation: Operation = "copy"
    refusal: TaskError | None = None  # known before it runs: it ends `Skipped` with this

    @property
    def rule(self) -> Rule:
        """Returns the rule that asked for the task."""
        return self.compiled.rule

    @property
    def execution_id(self) -> str:
        """Returns the execution whose listing found it; an event that just happened is an execution of its own."""
        if self.event.part_of is not None:
            return self.event.part_of.execution_id
        return make_id("execution", self.rule.name, self.event.id)

    @property
    def trigger(self) -> TriggerKind:
        """Returns what started the task's execution."""
        return self.event.part_of.trigger if self.event.part_of is not None else "event_based"

    @property
    def is_bulk(self) -> bool:
        """Returns whether a listing found it; such a task yields to what happens now."""
        return self.event.part_of is not None

    @property
    def is_prefetch(self) -> bool:
        """Returns whether it is one blob, copied before the manifest that will name it."""
        return self.event.action in (Action.BLOB_PUSH, Action.BLOB_MOUNT)

    @property
    def is_prune(self) -> bool:
        """Returns whether it deletes an orphaned tag of a replica: no registry announced that, no human asked."""
        return self.operation == "delete" and self.trigger == "reconcile"

    @property
    def is_inferred(self) -> bool:
        """Returns whether it deletes what was to be copied and is missing at the source; no event announced that."""
        return self.operation == "delete" and self.event.action is Action.MANIFEST_PUSH

    @property
    def is_fill(self) -> bool:
        """Returns whether an unasked comparison of a replica with its whole instance found it."""
        return self.rule.replica is not None and self.trigger in FILLS

    @property
    def is_dry_run(self) -> bool:
        """Returns whether it writes nothing and reports what it would copy."""
        return self.event.part_of is not None and self.event.part_of.dry_run

    @property
    def resends(self) -> bool:
        """Returns whether it copies all again, since the destination was seen to lack what it says it has."""
        return self.event.part_of is not None and self.event.part_of.resend

    @property
    def task_id(self) -> str:
        """Returns the deterministic id: the same event leads to the same task."""
        return task_id_of(self.execution_id, self.destination.name, self.repository, self.reference)

    @property
    def reference(self) -> Reference:
        """Returns what both registries are asked for: the tag, or the digest of an untagged push."""
        return self.tag if self.tag is not None else Digest(str(self.digest))

    @property
    def is_referrer(self) -> bool:
        """Returns whether it is about another manifest: by its tag's name, or, of an untagged push, possibly."""
        return self.tag is None or subject_named(self.tag) is not None

    @property
    def chain(self) -> Chain:
        """Returns the origin and hops that are sent to the destination, so that loops end."""
        return Chain(self.event.origin or self.event.place, min(self.event.hops + 1, MAX_HOPS))

    @property
    def target(self) -> Target:
        """Returns what it writes; only one task writes a target at a time. A dry run has a target of its own."""
        if self.is_dry_run:
            return ("dry run", self.task_id)
        return target_of(
            self.rule.name,
            self.destination.name,
            self.repository,
            self.destination_repository,
            self.reference,
        )

    @property
    def lane(self) -> tuple[str, ...]:
        """Returns its lane. Tasks of one lane run in order; what a listing found has lanes of its own."""
        lane = (self.destination.name, self.source.name, self.repository)
        return (*lane, "bulk") if self.is_bulk else lane

    def supersedes(self, older: Event, *, holds: bool = False) -> bool:
        """Returns whether it makes the task of `older`, an event with the same target, needless.

        A push always does. A task of an execution can be stopped, so it makes one of another execution needless only
        once the destination `holds` its digest, or where neither was started by hand and both are parked. It
        supersedes no push, and a fill supersedes nothing that a human asked for, since it overwrites less.
        """
        if not self.is_bulk:
            return True
        if older.part_of is None or (self.is_fill and older.part_of.trigger not in FILLS):
            return False
        return holds or "manual" not in (self.trigger, older.part_of.trigger)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended."""

    status: Status
    digest: Digest | None = None
    error: TaskError | None = None
    rebuilt_from: Digest | None = None  # the source's digest, where the destination holds a rebuilt index
    may_help_later: bool = False  # of a failure: a later attempt may succeed

    @property
    def holds(self) -> bool:
        """Returns whether the destination's tag names the digest now."""
        return self.status is Status.SUCCEED or (self.error is not None and self.error.code == ALREADY_THERE)

    @property
    def is_unreported(self) -> bool:
        """Returns whether there was no task after all, so that no completion is written.

        An untagged manifest that is about nothing, such as the children of an index, is none. Nor is the deletion
        of what the destination never had, such as most blobs.
        """
        return self.error is not None and self.error.code in (NO_REFERRER, NOT_HELD)


class NotAdmitted(RegmeshError):
    """The task must not write as things are now; it ends `Skipped` with `refusal`."""

    code = "not_admitted"

    def __init__(self, refusal: TaskError) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def skipped(code: str, message: str, digest: Digest | None = None) -> Outcome:
    """Returns the outcome of a task that had nothing to do or must not write."""
    return Outcome(Status.SKIPPED, digest, TaskError(code=code, side=Side.MESH, message=message))


def superseded(digest: Digest | None = None) -> Outcome:
    """Returns the outcome of a task that ends because a newer one with the same target is queued."""
    return skipped(SUPERSEDED, "a newer push or deletion of this tag is queued behind this one", digest)


ALREADY_THERE = "already_there"
ALREADY_GONE = "already_gone"
NOT_HELD = "not_held"
SOURCE_HAS_IT = "source_has_it"
SOURCE_UNSURE = "source_unsure"
STILL_TAGGED = "still_tagged"
DELETION_HELD = "deletion_held"
SUPERSEDED = "superseded"
DRY_RUN = "dry_run"
SOURCE_GONE = "source_gone"
SUBJECT_NOT_THERE = "subject_not_there"
REFERRERS_LEFT_OUT = "referrers_left_out"
NO_REFERRER = "no_referrer"
FILTERED = "filtered"
NOT_OVERRIDDEN = "not_overridden"
UNMAPPABLE = "unmappable"
NO_GRANT = "no_grant"
NOT_PUBLIC = "not_public"
OWNED = "owned_by"
BOUNDARY = "boundary"
HOPS = "hops"
OTHER_CONTENT = "other_content"
