"""Prunes an orphaned tag: one that a replica holds and its instance does not, though no event announced its deletion.

It is deleted only if all checks agree: the tag names what was copied from the instance, and the source answers that it
has no such tag, now and again right before the write. Whatever is unclear stays until the next comparison.
"""

from consumer.deletion import untag
from consumer.deletion.rate_limit import prune_refusal
from consumer.image.job import Job
from consumer.task import (
    ALREADY_GONE,
    DELETION_HELD,
    OTHER_CONTENT,
    SOURCE_HAS_IT,
    SOURCE_UNSURE,
    SUPERSEDED,
    Outcome,
    skipped,
    superseded,
)
from mesh.errors import RegistryError, clean
from mesh.registry.port import Descriptor
from schemas.completions import Side, Status
from schemas.names import Tag


async def prune_tag(job: Job, tag: Tag, held: Descriptor) -> Outcome:
    """Deletes the tag, which names `held` at the replica.

    Raises:
        RegistryError: A registry failed for now. A source that refuses for good ends the task `Skipped`.
    """
    try:
        return await _delete(job, tag, held)
    except RegistryError as error:
        if error.retryable or error.side is not Side.SOURCE:
            raise
        message = clean(f"the source does not say clearly that it does not have it: {error}")
        return skipped(SOURCE_UNSURE, message, held.digest)


async def _delete(job: Job, tag: Tag, held: Descriptor) -> Outcome:
    if (refusal := _other_content(job, held) or await _kept(job, held) or _refused(job, held)) is not None:
        return refusal
    await job.before_write()
    if (refusal := await _moved(job, tag, held) or await _kept(job, held)) is not None:
        return refusal

    async def may_delete(other: Tag) -> bool:
        return not await job.source_has(other)

    await untag.untag(job, tag, held, may_delete)
    return Outcome(Status.SUCCEED, held.digest)


def _other_content(job: Job, held: Descriptor) -> Outcome | None:
    if held.digest == job.task.digest:
        return None
    return skipped(OTHER_CONTENT, "the tag names content that was not copied from its instance", held.digest)


def _refused(job: Job, held: Descriptor) -> Outcome | None:
    message = prune_refusal(job.task)
    return skipped(DELETION_HELD, clean(message), held.digest) if message is not None else None


async def _moved(job: Job, tag: Tag, held: Descriptor) -> Outcome | None:
    now = await job.destination.resolve(job.task.destination_repository, tag)
    if now is None:
        return skipped(ALREADY_GONE, "the destination does not have this tag any more")
    return skipped(SUPERSEDED, "the tag was written meanwhile", now.digest) if now != held else None


async def _kept(job: Job, held: Descriptor) -> Outcome | None:
    """Why it stays; None when the registry itself says that the tag was deleted."""
    if job.control.superseded.is_set():
        return superseded(held.digest)
    if await job.source_has(job.task.reference):
        return skipped(SOURCE_HAS_IT, "the source has it", held.digest)
    return None
