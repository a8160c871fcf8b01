"""One task, whole, on one page: survey, select, plan, copy the blobs, copy the manifests, bring referrers, tag.

The order is the promise: whoever finds the tag at the destination finds everything below it.
"""

from consumer.image import choose, copy_manifest, estimate, overwrite, plan, referrers, select, survey
from consumer.image.job import Job
from consumer.task import ALREADY_THERE, SOURCE_GONE, SUPERSEDED, Image, Outcome, Task, skipped
from mesh.errors import RegmeshError
from schemas.completions import Side, Status, TaskError

_THERE = "the destination holds this digest under this tag"
_MOST_MOVES = 20  # a tag that moves more often than this while it is copied is left to its next event


async def replicate(job: Job, *, resend: bool = False) -> Outcome:
    """Bring the tag to the destination. Raises what a registry said when it could not; trying again is safe.

    A tag that moved while it was copied is followed: what counts is what the source holds at the end.
    `resend`: the destination does not have what it says it has.
    """
    if job.task.is_referrer:
        return await referrers.follow(job, resend=resend)
    newer = job.control.superseded.is_set
    digest = await survey.announced_digest(job.source, job.task, clock=job.clock, newer=newer)
    for _ in range(_MOST_MOVES):
        if newer():
            return skipped(SUPERSEDED, "a newer push of this tag is waiting behind this one")
        if digest is None:
            return skipped(SOURCE_GONE, "the source does not have this tag any more")
        job.progress.digest = digest
        if not choose.takes_parts(job.task) and await survey.holds(job.destination, job.task, digest):
            await referrers.catch_up(job, digest)
            return skipped(ALREADY_THERE, _THERE, digest)
        image = await choose.choose(job, digest)
        if image is not None and (refusal := await _copy_content(job, image, resend=resend)) is not None:
            return Outcome(Status.SKIPPED, image.digest, refusal, image.rebuilt_from)
        if image is not None:  # before the last look at the source: what is asked here may take long
            await job.begin()
            await overwrite.check(job.source, job.destination, job.task, image.digest, clock=job.clock)
        now = await survey.settled_digest(job.source, job.task, digest, clock=job.clock, newer=newer)
        if image is not None and now == digest:
            await copy_manifest.write_tag(image, job.task, job.destination)
            return Outcome(Status.SUCCEED, image.digest, None, image.rebuilt_from)
        digest = now
    raise TagNeverSettles(job.task)


async def _copy_content(job: Job, image: Image, *, resend: bool) -> TaskError | None:
    """All of the image but its tag; or why there is nothing to copy."""
    steps = plan.make_plan(image)
    job.progress.start_pass(select.resource_of(image), steps.blobs)
    if choose.takes_parts(job.task) and await survey.holds_all(job.destination, job.task, image):
        job.progress.bytes_skipped = job.progress.bytes_total
        await referrers.catch_up(job, image.digest)
        return TaskError(code=ALREADY_THERE, side=Side.MESH, message=_THERE)
    await overwrite.check(job.source, job.destination, job.task, image.digest, clock=job.clock)
    if job.task.is_dry_run:
        return await estimate.estimate(steps, job.task, job.destination, job.progress, job.counted)
    if not resend and await survey.has_all(job.destination, job.task, image):
        job.progress.bytes_skipped = job.progress.bytes_total
    else:
        await job.begin()
        await job.copier.copy(steps.blobs, job.run, job.source, job.destination, resend=resend)
        await copy_manifest.copy_manifests(
            steps, job.task, job.destination, resend=resend, root_is_missing=not image.sparse
        )
    await referrers.bring(job, image, resend=resend)
    return None


class TagNeverSettles(RegmeshError):
    code = "tag_never_settles"
    retryable = True
    side = Side.SOURCE

    def __init__(self, task: Task) -> None:
        super().__init__(f"the source's tag {task.tag!r} moved {_MOST_MOVES} times while it was copied")
