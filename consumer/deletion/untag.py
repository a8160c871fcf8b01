"""Take a tag away from a destination; where a registry cannot do that, the digest, if no surviving tag needs it.

docker-registry 2.8 answers 400 to the deletion of a tag, and a deleted digest takes all its tags away. So its other
tags are asked about before it goes: those that the source has lost too do not keep it.
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


Goes = Callable[
    [Tag], Awaitable[bool]
]  # whether another tag of the same digest may go with the one that has to


async def untag(job: Job, tag: Tag, held: Descriptor, goes: Goes) -> None:
    """The destination does not have the tag afterwards, as it says itself. `TagDeleteUnsupported`, `DeleteRefused`."""
    repository = job.task.destination_repository
    try:
        await job.destination.delete_manifest(repository, tag)
    except NotFound:
        return
    except Denied as error:
        raise _refused(error) from error
    except Rejected as error:
        await _instead_of(job, tag, held, goes, error)
    if await job.destination.resolve(repository, tag) is not None:
        raise ServerFault("the registry said that the tag is deleted, and has it", side=Side.DESTINATION)


async def delete_digest(job: Job, digest: Digest) -> None:
    """With all tags that name it. `DeleteRefused`."""
    try:
        await job.destination.delete_manifest(job.task.destination_repository, digest)
    except NotFound:
        return
    except (Denied, Rejected) as error:
        raise _refused(error) from error


async def tags_of(job: Job) -> dict[Tag, Descriptor]:
    """What the tags of the destination's repository name."""
    tags, found = await list_tags(job), dict[Tag, Descriptor]()
    for at in range(0, len(tags), _CONCURRENT_REQUESTS):
        some = tags[at : at + _CONCURRENT_REQUESTS]
        answers = await all_of(_resolve(job, tag) for tag in some)
        found |= {tag: answer for tag, answer in zip(some, answers, strict=True) if answer is not None}
    return found


async def list_tags(job: Job) -> list[Tag]:
    """Of the destination's repository."""
    try:
        return [tag async for tag in job.destination.tags(job.task.destination_repository)]
    except NotFound:
        return []


async def is_part(job: Job, digest: Digest, tagged: Mapping[Tag, Descriptor] | None = None) -> bool:
    """Whether a tagged index of the destination's repository names it."""
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


async def _instead_of(job: Job, tag: Tag, held: Descriptor, goes: Goes, refusal: Rejected) -> None:
    tagged = await tags_of(job)
    mine = {name for name, found in tagged.items() if found.digest == held.digest}
    kept_by = await _first_that_stays(sorted(mine - {tag}), goes)
    if kept_by is None and await is_part(job, held.digest, {it: tagged[it] for it in tagged.keys() - mine}):
        kept_by = "a tagged index"
    if kept_by is not None:
        raise TagDeleteUnsupported(
            f"the registry cannot delete a tag alone ({refusal}), and {kept_by} names the same digest",
            side=Side.DESTINATION, status=refusal.status,
        ) from refusal  # fmt: skip
    await delete_digest(job, held.digest)


async def _first_that_stays(tags: Iterable[Tag], goes: Goes) -> str | None:
    for tag in tags:
        if not await goes(tag):
            return f"the tag {tag}"
    return None


async def _resolve(job: Job, reference: Reference) -> Descriptor | None:
    return await job.destination.resolve(job.task.destination_repository, reference)


def _refused(error: Denied | Rejected) -> DeleteRefused:
    return DeleteRefused(
        f"the destination does not delete: {error}", side=Side.DESTINATION, status=error.status
    )
