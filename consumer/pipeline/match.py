"""Which tasks an event leads to in a region: none, unless a rule matches (default deny). Pure."""

from collections.abc import Iterable
from datetime import timedelta

from consumer.task import BOUNDARY, FILTERED, HOPS, UNMAPPABLE, Task
from mesh.errors import clean
from mesh.registry.manifests import DOCKER_LIST, DOCKER_MANIFEST
from mesh.registry.referrers import is_fallback, subject_named
from mesh.rules import boundary, naming
from mesh.rules.matching.compiled_rule import CompiledRule
from mesh.rules.state import MeshState
from schemas.completions import Side, TaskError
from schemas.envelope import MAX_HOPS
from schemas.events import Action, Event
from schemas.names import Region, Tag
from schemas.rules import EventBased, Rule
from schemas.topology import Place

_CLOCK_SKEW = timedelta(seconds=60)  # at most, between an intake and control


def match(event: Event, state: MeshState, region: Region) -> list[Task]:
    """Returns the tasks for destinations in `region`.

    A referrer follows its subject: every rule that wants its repository wants it, whatever its tag filters. What was
    pushed by digest alone may be a referrer; if it is not, it is copied as a child of what names it. Deletions are for
    rules that follow them. Blob events and the deletion of a whole repository lead to no task.
    """
    source = state.place(event.place)
    if not (_may_be_copied(event) or _is_deletion(event)):
        return []
    if source is None:
        return []
    tag = _filtered_tag(event)
    return [
        task
        for compiled in _candidates(event, state, tag)
        if ((wanted := _wants(compiled, event, tag)) or event.part_of is not None)
        and (destination := _destination(compiled, state, region)) is not None
        and (task := _task(event, compiled, source, destination, state, wanted=wanted)) is not None
    ]


def match_prefetch(event: Event, state: MeshState, region: Region) -> list[Task]:
    """Returns the copies of a pushed blob to destinations in `region` whose rules prefetch."""
    source = state.place(event.place)
    if event.action not in (Action.BLOB_PUSH, Action.BLOB_MOUNT) or event.digest is None or source is None:
        return []
    return [
        task
        for compiled in state.candidate_rules(event.place, event.repository)
        if compiled.rule.prefetch and compiled.wants_repository(event.repository)
        if (destination := _destination(compiled, state, region)) is not None
        if not boundary.prefetch_refused(state, source, destination)
        if (task := _task(event, compiled, source, destination, state, wanted=True)) is not None
    ]


def _task(
    event: Event,
    compiled: CompiledRule,
    source: Place,
    destination: Place,
    state: MeshState,
    *,
    wanted: bool,
) -> Task | None:
    """None for an untagged push whose repository cannot be mapped: the task of a tag that names it reports that."""
    rule, repository = compiled.rule, event.repository
    refusal = None if wanted else _not_wanted(event, compiled)
    if event.hops >= MAX_HOPS:  # a chain that is too long is reported: its length may be a pusher's claim
        message = f"it has passed {event.hops} instances, the most that a chain of rules may have"
        refusal = TaskError(code=HOPS, side=Side.MESH, message=message)
    if (border := boundary.refusal(state, rule, source, destination)) is not None:
        refusal = TaskError(code=BOUNDARY, side=Side.MESH, message=clean(border))
    try:
        repository = naming.destination_of(rule, repository)
    except naming.Unmappable as error:
        if event.tag is None:
            return None
        refusal = refusal or TaskError(code=UNMAPPABLE, side=Side.MESH, message=clean(str(error)))
    return Task(
        event=event,
        compiled=compiled,
        source=source,
        destination=destination,
        repository=event.repository,
        destination_repository=repository,
        tag=event.tag,
        digest=event.digest,
        rules_rev=state.rev,
        operation="delete" if _is_deletion(event) else "copy",
        refusal=refusal,
    )


def _may_be_copied(event: Event) -> bool:
    return event.action is Action.MANIFEST_PUSH and (event.tag is not None or _may_have_subject(event))


def _is_deletion(event: Event) -> bool:
    """Whether it is a deletion that can be followed. Fallback indexes are merged, so theirs cannot."""
    if event.action is Action.TAG_DELETE:
        return event.tag is not None and not is_fallback(event.tag)
    return event.action is Action.MANIFEST_DELETE and event.digest is not None and event.tag is None


def _may_have_subject(event: Event) -> bool:
    """Docker's own media types have no subject; most untagged pushes have those types or are children."""
    return event.digest is not None and event.media_type not in (DOCKER_MANIFEST, DOCKER_LIST)


def _wants(compiled: CompiledRule, event: Event, tag: Tag | None) -> bool:
    if _is_deletion(event) and not compiled.rule.deletion:
        return False
    return (
        compiled.wants_repository(event.repository) if tag is None else compiled.wants(event.repository, tag)
    )


def _filtered_tag(event: Event) -> Tag | None:
    """The tag that filters apply to; None for what may be a referrer, where only the repository counts."""
    return None if event.tag is None or subject_named(event.tag) is not None else event.tag


def _not_wanted(event: Event, compiled: CompiledRule) -> TaskError:
    """Why a listed artifact is not wanted any more; its execution still waits for the end of its task."""
    miss = compiled.early_miss(event.repository, event.tag) if event.tag is not None else None
    if miss is None and _is_deletion(event) and not compiled.rule.deletion:
        miss = "it does not follow deletions"
    text = f"the rule was changed and does not want it any more: {miss or 'it is not enabled'}"
    return TaskError(code=FILTERED, side=Side.MESH, message=clean(text))


def _candidates(event: Event, state: MeshState, tag: Tag | None) -> Iterable[CompiledRule]:
    """What a listing found is for the rule of that listing; what happened is for every event-based rule."""
    if event.part_of is not None:
        found = state.rule(event.part_of.rule)
        return [found] if found is not None and str(found.rule.source) == event.place else []
    near = state.candidate_rules(event.place, event.repository, tag)
    return (
        compiled
        for compiled in near
        if isinstance(compiled.rule.trigger, EventBased) and not _is_before(event, compiled.rule, state)
    )


def _is_before(event: Event, rule: Rule, state: MeshState) -> bool:
    """Whether the event happened before its rule was declared: then only a backfill copies it.

    Two witnesses have to agree: the revision that the intake stamped, which is older than the newest while the log is
    away, and the time, which two clocks may tell differently.
    """
    first = state.first_declared(rule.key)
    if first is None or event.rules_rev > first.after_rev:
        return False
    return event.time < first.time - _CLOCK_SKEW


def _destination(compiled: CompiledRule, state: MeshState, region: Region) -> Place | None:
    """The rule's destination if it is in `region`. Grants are checked when the task runs."""
    found = state.place(compiled.rule.destination)
    return found if found is not None and found.region == region else None
