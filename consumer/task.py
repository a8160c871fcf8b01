"""The values that the steps hand to each other. A task is one artifact to one destination."""

from dataclasses import dataclass

from mesh.errors import RegmeshError
from mesh.registry.manifests import Parts
from mesh.registry.port import Chain, Descriptor, Manifest
from mesh.registry.referrers import subject_named
from schemas.completions import Operation, Side, Status, TaskError, task_id_of
from schemas.envelope import MAX_HOPS, make_id
from schemas.events import Action, Event
from schemas.names import Digest, PlaceName, Reference, Repository, Tag
from schemas.rules import Rule, TriggerKind
from schemas.topology import Place

BlobKey = tuple[PlaceName, Digest]  # a blob on its way to a place


FILLS = frozenset[TriggerKind](
    {"backfill", "reconcile"}
)  # what triggers the look through a replica's instance


@dataclass(frozen=True, slots=True)
class Task:
    """One tag, or one manifest that nobody tagged, from where an event says it was pushed, to one destination."""

    event: Event
    rule: Rule
    source: Place
    destination: Place
    repository: Repository
    destination_repository: Repository
    tag: Tag | None  # None: a push by digest alone
    digest: Digest | None  # None: the registry did not say; the source's tag tells
    rules_rev: int  # of the table that matched it
    operation: Operation = "copy"
    refusal: TaskError | None = None  # known before it runs: then it ends `Skipped` with this

    @property
    def execution_id(self) -> str:
        """The one whose listing found it; an event that just happened is an execution of its own."""
        if self.event.part_of is not None:
            return self.event.part_of.execution_id
        return make_id("execution", self.rule.name, self.event.id)

    @property
    def trigger(self) -> TriggerKind:
        return self.event.part_of.trigger if self.event.part_of is not None else "event_based"

    @property
    def is_bulk(self) -> bool:
        """Found by a listing: it yields to what happens now."""
        return self.event.part_of is not None

    @property
    def is_prefetch(self) -> bool:
        """Of one blob, before the manifest that will name it."""
        return self.event.action in (Action.BLOB_PUSH, Action.BLOB_MOUNT)

    @property
    def is_prune(self) -> bool:
        """The deletion of what a replica was found to hold still: no registry announced it, no human asked for it."""
        return self.operation == "delete" and self.trigger == "reconcile"

    @property
    def is_inferred(self) -> bool:
        """The deletion of what was to be copied and is gone from the source: no registry announced it either."""
        return self.operation == "delete" and self.event.action is Action.MANIFEST_PUSH

    @property
    def is_fill(self) -> bool:
        """Found by looking through a whole replica's instance, unasked."""
        return self.rule.replica is not None and self.trigger in FILLS

    @property
    def is_dry_run(self) -> bool:
        return self.event.part_of is not None and self.event.part_of.dry_run

    @property
    def task_id(self) -> str:
        return task_id_of(self.execution_id, self.destination.name, self.repository, self.reference)

    @property
    def reference(self) -> Reference:
        """What both sides are asked for: the tag, or of a push without one the digest."""
        return self.tag if self.tag is not None else Digest(str(self.digest))

    @property
    def is_referrer(self) -> bool:
        """Pushed about something else: by its tag's name, or, of what nobody tagged, perhaps."""
        return self.tag is None or subject_named(self.tag) is not None

    @property
    def chain(self) -> Chain:
        """What its destination is told of where this came from."""
        return Chain(self.event.origin or self.event.place, min(self.event.hops + 1, MAX_HOPS))

    @property
    def target(self) -> tuple[str, ...]:
        """What it writes, one task at a time: a newer one with the same target supersedes one that waits.

        A dry run writes nothing, so it is in nobody's way.
        """
        if self.is_dry_run:
            return ("dry run", self.task_id)
        names = (self.repository, self.destination_repository)  # a mapping may bring two under one
        return (self.rule.name, self.destination.name, *names, self.reference)

    @property
    def lane(self) -> tuple[str, ...]:
        """Tasks of one lane run in order, one at a time. A push does not queue up behind a listing."""
        lane = (self.destination.name, self.source.name, self.repository)
        return (*lane, "bulk") if self.is_bulk else lane


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest with what is wanted of all below it. Manifests are ordered children first, the root last."""

    root: Manifest
    manifests: tuple[tuple[Manifest, Parts], ...]
    rebuilt_from: Digest | None = None  # what the source holds, where the root is an index of our own making

    @property
    def digest(self) -> Digest:
        return self.root.digest

    @property
    def sparse(self) -> frozenset[Digest]:
        """Indexes that name more than what is here."""
        here = {manifest.digest for manifest, _ in self.manifests}
        return frozenset(
            manifest.digest
            for manifest, parts in self.manifests
            if any(child.digest not in here for child in parts.children)
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What to copy, in order: every blob before the manifests, children before what names them."""

    blobs: tuple[Descriptor, ...]
    manifests: tuple[Manifest, ...]
    sparse: frozenset[Digest] = frozenset()  # indexes that name more than is copied


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended."""

    status: Status
    digest: Digest | None = None
    error: TaskError | None = None
    rebuilt_from: Digest | None = (
        None  # the source's digest, where the destination holds an index of our own making
    )

    may_help_later: bool = False  # of a failure: trying again may help

    @property
    def holds(self) -> bool:
        """The destination holds the digest under the tag now."""
        return self.status is Status.SUCCEED or (self.error is not None and self.error.code == ALREADY_THERE)

    @property
    def is_untold(self) -> bool:
        """The end of what was no task: an untagged manifest that is about nothing, as the parts of an index are.

        So is the deletion of what the destination never had, as most blobs' is.
        """
        return self.error is not None and self.error.code in (NO_REFERRER, NOT_HELD)


class NotAdmitted(RegmeshError):
    """As things are now the task must not write: it ends `Skipped` with `refusal`."""

    code = "not_admitted"

    def __init__(self, refusal: TaskError) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def skipped(code: str, message: str, digest: Digest | None = None) -> Outcome:
    return Outcome(Status.SKIPPED, digest, TaskError(code=code, side=Side.MESH, message=message))


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
NO_REFERRER = "no_referrer"
FILTERED = "filtered"
NOT_OVERRIDDEN = "not_overridden"
UNMAPPABLE = "unmappable"
NO_GRANT = "no_grant"
NOT_PUBLIC = "not_public"
OWNED = "owned_by"
BOUNDARY = "boundary"
OTHER_CONTENT = "other_content"
