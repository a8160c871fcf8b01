"""Follows a deletion, on one page: what the source does not have any more is deleted at the destination too.

The event is a hint. The source is asked before anything is deleted, and a tag that is pushed again meanwhile stays.
Of a deleted digest the destination's tags are deleted first, each only if that is allowed, and the digest last.
"""

from dataclasses import dataclass, replace

from consumer.deletion import untag
from consumer.deletion.prune import prune_tag
from consumer.deletion.rate_limit import DeletionRateLimit
from consumer.image import choose
from consumer.image.admission import Stage
from consumer.image.job import Job
from consumer.image.survey import SETTLE_SECONDS
from consumer.task import (
    ALREADY_GONE,
    DELETION_HELD,
    NOT_HELD,
    NOT_OVERRIDDEN,
    SOURCE_HAS_IT,
    STILL_TAGGED,
    NotAdmitted,
    Outcome,
    Task,
    skipped,
    superseded,
)
from mesh.errors import NotFound, UnreadableNames
from mesh.registry.port import Descriptor
from schemas.completions import Side, Status, TaskError
from schemas.names import Digest, Tag

_RETRY_SECONDS = 0.25  # between two looks at a source that announced before it deleted


@dataclass(frozen=True, slots=True)
class Deletion:
    """One attempt of a delete task, with the limit that it is held to."""

    job: Job
    rate_limit: DeletionRateLimit


async def delete(deletion: Deletion) -> Outcome:
    """Deletes the task's tag or digest at the destination.

    Raises:
        RegistryError: A registry failed; another attempt is safe.
        NotAdmitted: The task must not delete, or is held for a human.
    """
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
    await job.before_write()

    async def may_delete(other: Tag) -> bool:
        try:
            if await _why_kept(deletion, other) is not None:
                return False
            await _admit(deletion, other, held)
        except NotAdmitted as error:
            if error.refusal.code == DELETION_HELD:
                raise
            return False
        return True

    await untag.untag(job, tag, held, may_delete)
    return Outcome(Status.SUCCEED, held.digest)


async def _delete_digest(deletion: Deletion, digest: Digest) -> Outcome:
    """Ends unreported where the destination does not hold the digest: deleted blobs are announced the same way."""
    job = deletion.job
    repository = job.task.destination_repository
    held = await job.destination.resolve(repository, digest)
    if held is None:
        return skipped(NOT_HELD, "the destination does not have this manifest")
    job.progress.digest = digest
    if (kept := await _source_keeps(job)) is not None:
        return replace(kept, digest=digest)
    tags, needed = await _tags_to_delete(deletion, digest)
    for tag in tags:
        await _admit(deletion, tag, held)
    if needed is None and await untag.is_part(job, digest):
        needed = "an image that is tagged at the destination has it as a part"
    if tags or needed is None:
        await job.before_write()

    async def may_delete(other: Tag) -> bool:
        return other in tags

    for tag in tags:
        await untag.untag(job.of(replace(job.task, tag=tag)), tag, held, may_delete)
    if needed is not None:
        return skipped(STILL_TAGGED, needed, digest)
    if await job.destination.resolve(repository, digest) is not None:
        await untag.delete_digest(job, digest)
    return Outcome(Status.SUCCEED, digest)


async def _tags_to_delete(deletion: Deletion, digest: Digest) -> tuple[list[Tag], str | None]:
    """The tags that name the digest and are to be deleted, and why the digest itself is kept, if it is."""
    to_delete, needed = list[Tag](), None
    for tag, found in (await untag.tags_of(deletion.job)).items():
        if found.digest != digest:
            continue
        if (why := await _why_kept(deletion, tag)) is not None:
            needed = why
        else:
            to_delete.append(tag)
    return to_delete, needed


async def _why_kept(deletion: Deletion, tag: Tag) -> str | None:
    """Why a tag of a deleted digest is kept; None when the source does not have that tag either."""
    job = deletion.job
    if not job.task.compiled.wants(job.task.repository, tag):
        return f"the destination's tag {tag} names it, which the rule does not want"
    if await job.source_has(tag):
        return f"the tag {tag} names it, and the source has that tag"
    return None


async def _admit(deletion: Deletion, tag: Tag, held: Descriptor) -> None:
    """Raises `NotAdmitted` when the tag belongs to another rule, or its deletion is held for a human."""
    named = replace(deletion.job.task, tag=tag)
    await deletion.job.of(named).admit(Stage.WRITE)
    await _check(deletion, named, held)


async def _source_keeps(job: Job) -> Outcome | None:
    """Why nothing is deleted: the source has it, even a moment later, as registries announce before they delete."""
    deadline = job.clock.monotonic() + SETTLE_SECONDS
    while await job.source_has(job.task.reference):
        if job.control.superseded.is_set():
            return superseded()
        if job.clock.monotonic() >= deadline:
            return skipped(SOURCE_HAS_IT, "the source has it: it was pushed again, or never deleted")
        await job.clock.sleep(_RETRY_SECONDS)
    return None


async def _unannounced(job: Job, held: Descriptor) -> Outcome | None:
    """Why nothing is deleted that no event announced: the source does not say itself that it lacks the tag."""
    task = job.task
    if not task.rule.override and held.digest != task.digest:
        return skipped(NOT_OVERRIDDEN, f"it names {held.digest}, which is not what was pushed")
    return skipped(SOURCE_HAS_IT, "the source has it again") if await job.source_has(task.reference) else None


async def _check(deletion: Deletion, task: Task, held: Descriptor) -> None:
    """Raises `NotAdmitted` when the rule does not want what is there, or the rate limit holds the deletion."""
    job = deletion.job
    if any(part.type in ("resource", "label") for part in task.rule.filters):
        there = replace(task, repository=task.destination_repository)
        await choose.wanted_image(replace(job.of(there), source=job.destination), held.digest)
    if task.is_bulk and not task.is_inferred:
        return  # a human asked for this very one
    if not deletion.rate_limit.has_counted(task, job.clock.monotonic()):
        deletion.rate_limit.count(task, await _number_wanted(job))
    message = deletion.rate_limit.refusal(task, job.clock.monotonic(), held_as=job.task.task_id)
    if message is not None:
        raise NotAdmitted(TaskError(code=DELETION_HELD, side=Side.MESH, message=message[:256]))


async def _number_wanted(job: Job) -> int:
    """How many of the destination's tags the rule wants. Unreadable ones are not counted, which lowers the limit."""
    wants, wanted = job.task.compiled.wants, 0
    try:
        async for tag in job.destination.tags(job.task.destination_repository):
            wanted += wants(job.task.repository, tag)
    except (NotFound, UnreadableNames):
        pass
    return wanted
