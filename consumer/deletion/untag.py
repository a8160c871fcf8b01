"""Deletes a tag at a destination; where a registry cannot, the digest, unless another tag needs it.

docker-registry 2.8 answers 400 to the deletion of a tag, and deleting a digest deletes all its tags. So the digest is
deleted only if each of its other tags may be deleted too.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping

from consumer.image.job import Job
from mesh.concurrency import all_of
from mesh.errors import DeleteRefused, Denied, NotFound, Rejected, ServerFault, TagDeleteUnsupported
from mesh.registry.manifests import INDEX_TYPES, read_parts
from mesh.registry.port import Descriptor
from schemas.completions import Side
from schemas.names import Digest, Reference, Tag

_CONCURRENT_REQUESTS = 8


MayDelete = Callable[[Tag], Awaitable[bool]]  # whether another tag of the same digest may be deleted too


async def untag(job: Job, tag: Tag, held: Descriptor, may_delete: MayDelete) -> None:
    """Deletes the tag, and checks that the destination does not have it any more.

    Raises:
        TagDeleteUnsupported: The registry cannot delete a tag alone, and another tag needs the digest.
        DeleteRefused: The registry refuses deletions.
    """
    repository = job.task.destination_repository
    try:
        await job.destination.delete_manifest(repository, tag)
    except NotFound:
        return
    except Denied as error:
        raise _refused(error) from error
    except Rejected as error:
        await _delete_digest_instead(job, tag, held, may_delete, error)
    if await job.destination.resolve(repository, tag) is not None:
        raise ServerFault("the registry reported the tag as deleted, and still has it", side=Side.DESTINATION)


async def delete_digest(job: Job, digest: Digest) -> None:
    """Deletes the digest with all tags that name it.

    Raises:
        DeleteRefused: The registry refuses deletions.
    """
    try:
        await job.destination.delete_manifest(job.task.destination_repository, digest)
    except NotFound:
        return
    except (Denied, Rejected) as error:
        raise _refused(error) from error


async def tags_of(job: Job) -> dict[Tag, Descriptor]:
    """Returns what each tag of the destination's repository names."""
    tags, found = await list_tags(job), dict[Tag, Descriptor]()
    for at in range(0, len(tags), _CONCURRENT_REQUESTS):
        some = tags[at : at + _CONCURRENT_REQUESTS]
        answers = await all_of(_resolve(job, tag) for tag in some)
        found |= {tag: answer for tag, answer in zip(some, answers, strict=True) if answer is not None}
    return found


async def list_tags(job: Job) -> list[Tag]:
    """Returns the tags of the destination's repository."""
    try:
        return [tag async for tag in job.destination.tags(job.task.destination_repository)]
    except NotFound:
        return []


async def is_part(job: Job, digest: Digest, tagged: Mapping[Tag, Descriptor] | None = None) -> bool:
    """Returns whether a tagged index of the destination's repository names the digest, directly or below."""
    found = await tags_of(job) if tagged is None else tagged
    indexes = {it.digest for it in found.values() if it.media_type in INDEX_TYPES}
    seen = set[Digest]()
    while indexes:
        index = await job.destination.read_manifest(job.task.destination_repository, indexes.pop())
        seen.add(index.digest)
        for child in read_parts(index, Side.DESTINATION).children:
            if child.digest == digest:
                return True
            if child.media_type in INDEX_TYPES and child.digest not in seen:
                indexes.add(child.digest)
    return False


async def _delete_digest_instead(
    job: Job, tag: Tag, held: Descriptor, may_delete: MayDelete, refusal: Rejected
) -> None:
    tagged = await tags_of(job)
    same = {name for name, found in tagged.items() if found.digest == held.digest}
    kept_by = await _first_kept(sorted(same - {tag}), may_delete)
    if kept_by is None and await is_part(job, held.digest, {it: tagged[it] for it in tagged.keys() - same}):
        kept_by = "a tagged index"
    if kept_by is not None:
        raise TagDeleteUnsupported(
            f"the registry cannot delete a tag alone ({refusal}), and {kept_by} names the same digest",
            side=Side.DESTINATION, status=refusal.status,
        ) from refusal  # fmt: skip
    await delete_digest(job, held.digest)


async def _first_kept(tags: Iterable[Tag], may_delete: MayDelete) -> str | None:
    for tag in tags:
        if not await may_delete(tag):
            return f"the tag {tag}"
    return None


async def _resolve(job: Job, reference: Reference) -> Descriptor | None:
    return await job.destination.resolve(job.task.destination_repository, reference)


def _refused(error: Denied | Rejected) -> DeleteRefused:
    return DeleteRefused(
        f"the destination does not delete: {error}", side=Side.DESTINATION, status=error.status
    )
