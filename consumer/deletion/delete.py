"""Follow a deletion, on one page: what the source does not have any more goes at the destination too.

The event is a hint. The source is asked before anything is deleted, and a tag that is pushed again meanwhile stays.
Of a deleted digest the destination's tags are untagged first, one by one, each only if it may be; the digest goes last.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from consumer.deletion import untag
from consumer.deletion.prune import prune_tag
from consumer.deletion.rate_limit import DeletionRateLimit
from consumer.image import choose
from consumer.image.job import Job
from consumer.image.survey import SETTLE_SECONDS
from consumer.task import (
    ALREADY_GONE,
    DELETION_HELD,
    NOT_HELD,
    NOT_OVERRIDDEN,
    SOURCE_HAS_IT,
    STILL_TAGGED,
    SUPERSEDED,
    NotAdmitted,
    Outcome,
    Task,
    skipped,
)
from mesh.errors import NotFound, UnreadableNames
from mesh.registry.port import Descriptor
from mesh.rules.matching.compiled_rule import CompiledRule
from schemas.completions import Side, Status, TaskError
from schemas.names import Digest, Tag

_LOOK_SECONDS = 0.25  # between two looks at a source that announced before it deleted


@dataclass(frozen=True, slots=True)
class Deletion:
    """A delete task with what it asks before it writes. `admit`: `NotAdmitted` when a task may not write."""

    job: Job
    admit: Callable[[Task], Awaitable[None]]
    bursts: DeletionRateLimit


async def delete(deletion: Deletion) -> Outcome:
    """Raises what a registry said when it could not; trying again is safe."""
    if deletion.job.task.tag is None:
        return await _delete_digest(deletion, Digest(str(deletion.job.task.digest)))
    return await _delete_tag(deletion, deletion.job.task.tag)


async def _delete_tag(deletion: Deletion, tag: Tag) -> Outcome:
    job = deletion.job
    held = await job.destination.resolve(job.task.destination_repository, tag)
    if held is None:
        return skipped(ALREADY_GONE, "the destination does not have this tag")
    job.progress.digest = held.digest
    if job.task.is_prune:
        return await prune_tag(job, tag, held)
    keeps = _unannounced(job, held) if job.task.is_inferred else _source_keeps(job)
    if (kept := await keeps) is not None:
        return replace(kept, digest=held.digest)
    await _check(deletion, job.task, held)
    await job.begin()

    async def goes(other: Tag) -> bool:
        try:
            return await _stays(deletion, other) is None and await _may_go(deletion, other, held)
        except NotAdmitted as error:
            if error.refusal.code == DELETION_HELD:
                raise
            return False

    await untag.untag(job, tag, held, goes)
    return Outcome(Status.SUCCEED, held.digest)


async def _delete_digest(deletion: Deletion, digest: Digest) -> Outcome:
    """Nothing is told where the destination does not hold it: a deleted blob is announced alike."""
    job = deletion.job
    repository = job.task.destination_repository
    held = await job.destination.resolve(repository, digest)
    if held is None:
        return skipped(NOT_HELD, "the destination does not have this manifest")
    job.progress.digest = digest
    if (kept := await _source_keeps(job)) is not None:
        return replace(kept, digest=digest)
    tags, needed = await _tags_to_go(deletion, digest)
    for tag in tags:
        await _may_go(deletion, tag, held)
    if needed is None and await untag.is_part(job, digest):
        needed = "an image that is tagged at the destination has it as a part"
    if tags or needed is None:
        await job.begin()

    async def goes(other: Tag) -> bool:
        return other in tags

    for tag in tags:
        await untag.untag(job.of(replace(job.task, tag=tag)), tag, held, goes)
    if needed is not None:
        return skipped(STILL_TAGGED, needed, digest)
    if await job.destination.resolve(repository, digest) is not None:
        await untag.delete_digest(job, digest)
    return Outcome(Status.SUCCEED, digest)


async def _tags_to_go(deletion: Deletion, digest: Digest) -> tuple[list[Tag], str | None]:
    """Of the destination's tags that name it those to be deleted, and what other tag keeps the digest, if any."""
    going, needed = list[Tag](), None
    for tag, found in (await untag.tags_of(deletion.job)).items():
        if found.digest != digest:
            continue
        if (why := await _stays(deletion, tag)) is not None:
            needed = why
        else:
            going.append(tag)
    return going, needed


async def _stays(deletion: Deletion, tag: Tag) -> str | None:
    """Why another tag of a digest that has to go stays; None when the source has lost that one too."""
    job = deletion.job
    if not CompiledRule(job.task.rule).wants(job.task.repository, tag):
        return f"the destination's tag {tag} names it, which the rule does not want"
    if await job.source_has(tag):
        return f"the tag {tag} names it, and the source has that tag"
    return None


async def _may_go(deletion: Deletion, tag: Tag, held: Descriptor) -> bool:
    """True; `NotAdmitted` when the tag is another's, or is held."""
    named = replace(deletion.job.task, tag=tag)
    await deletion.admit(named)
    await _check(deletion, named, held)
    return True


async def _source_keeps(job: Job) -> Outcome | None:
    """Why nothing is to be deleted: the source has it (again), after a moment for registries that announce first."""
    deadline = job.clock.monotonic() + SETTLE_SECONDS
    while await job.source_has(job.task.reference):
        if job.control.superseded.is_set():
            return skipped(SUPERSEDED, "a newer push of this tag is waiting behind this one")
        if job.clock.monotonic() >= deadline:
            return skipped(SOURCE_HAS_IT, "the source has it: it was pushed again, or never deleted")
        await job.clock.sleep(_LOOK_SECONDS)
    return None


async def _unannounced(job: Job, held: Descriptor) -> Outcome | None:
    """Why nothing is to be deleted that nobody announced. The source was waited for; now it has to say so itself."""
    task = job.task
    if not task.rule.override and held.digest != task.digest:
        return skipped(NOT_OVERRIDDEN, f"it names {held.digest}, which is not what was pushed")
    return skipped(SOURCE_HAS_IT, "the source has it again") if await job.source_has(task.reference) else None


async def _check(deletion: Deletion, task: Task, held: Descriptor) -> None:
    """`NotAdmitted` when the rule does not want what is there, or a burst of deletions waits for a human."""
    job = deletion.job
    if any(part.type in ("resource", "label") for part in task.rule.filters):
        there = replace(task, repository=task.destination_repository)
        await choose.choose(replace(job.of(there), source=job.destination), held.digest)
    if task.is_bulk and not task.is_inferred:
        return  # a human asked for this very one
    if not deletion.bursts.knows(task, job.clock.monotonic()):
        deletion.bursts.count(task, await _number_wanted(job))
    message = deletion.bursts.refusal(task, job.clock.monotonic(), held_as=job.task.task_id)
    if message is not None:
        raise NotAdmitted(TaskError(code=DELETION_HELD, side=Side.MESH, message=message[:256]))


async def _number_wanted(job: Job) -> int:
    """Of the destination's tags those that the rule wants. What cannot be read is not counted: then less may go."""
    wants, wanted = CompiledRule(job.task.rule).wants, 0
    try:
        async for tag in job.destination.tags(job.task.destination_repository):
            wanted += wants(job.task.repository, tag)
    except (NotFound, UnreadableNames):
        pass
    return wanted
