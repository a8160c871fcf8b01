"""One task on one page: survey, select, plan, copy the blobs, the manifests and the referrers, then write the tag.

The order is the promise: whoever finds the tag at the destination finds everything below it.
"""

from consumer.image import choose, copy_manifest, estimate, overwrite, plan, referrers, select, survey
from consumer.image.admission import Stage
from consumer.image.job import Job
from consumer.image.plan import Image
from consumer.task import ALREADY_THERE, SOURCE_GONE, Outcome, Task, skipped, superseded
from mesh.errors import RegmeshError
from schemas.completions import Side, Status, TaskError

_THERE = "the destination holds this digest under this tag"
_MOST_MOVES = 20  # a tag that moves more often while it is copied is left to its next event


async def replicate(job: Job, *, resend: bool = False) -> Outcome:
    """Copies the tag to the destination. A tag that moves meanwhile is followed: the source's last digest counts.

    `resend` sends everything again, since the destination lacks what it claims to have.

    Raises:
        RegistryError: A registry failed; another attempt is safe.
        NotAdmitted: The task must not write.
    """
    if job.task.is_referrer:
        return await referrers.follow(job, resend=resend)
    digest = await survey.announced_digest(job)
    for _ in range(_MOST_MOVES):
        if job.control.superseded.is_set():
            return superseded()
        if digest is None:
            return skipped(SOURCE_GONE, "the source does not have this tag any more")
        job.progress.digest = digest
        if not resend and not job.task.compiled.takes_parts and await survey.holds(job, digest):
            await referrers.catch_up(job, digest)
            return skipped(ALREADY_THERE, _THERE, digest)
        image = await choose.wanted_image(job, digest)
        if image is not None and (refusal := await _copy_content(job, image, resend=resend)) is not None:
            return Outcome(Status.SKIPPED, image.digest, refusal, image.rebuilt_from)
        if image is not None:  # before the last look at the source, as these checks may take long
            await job.before_write(Stage.TAG)
            await overwrite.check(job, image.digest)
        now = await survey.settled_digest(job, digest)
        if image is not None and now == digest:
            await copy_manifest.write_tag(job, image)
            now = await survey.current_digest(job)  # the write may have been slow, and the source moved on
            if now == digest or (now is None and not job.task.rule.deletion):
                return Outcome(Status.SUCCEED, image.digest, None, image.rebuilt_from)
        digest = now
    raise TagNeverSettles(job.task)


async def _copy_content(job: Job, image: Image, *, resend: bool) -> TaskError | None:
    """Copies all of the image but its tag, or returns why there is nothing to copy."""
    steps = plan.make_plan(image)
    job.progress.start_pass(select.resource_of(image), steps.blobs)
    if not resend and job.task.compiled.takes_parts and await survey.holds_all(job, image):
        job.progress.bytes_skipped = job.progress.bytes_total
        await referrers.catch_up(job, image.digest)
        return TaskError(code=ALREADY_THERE, side=Side.MESH, message=_THERE)
    await overwrite.check(job, image.digest)
    if job.task.is_dry_run:
        return await estimate.estimate(job, steps)
    if not resend and await survey.has_all(job, image):
        job.progress.bytes_skipped = job.progress.bytes_total
    else:
        await job.before_write()
        await job.services.copier.copy(steps.blobs, job.run, job.source, job.destination, resend=resend)
        await copy_manifest.copy_manifests(job, steps, resend=resend, root_is_missing=not image.sparse)
    await referrers.copy(job, image, resend=resend)
    return None


class TagNeverSettles(RegmeshError):
    """The source's tag moved too often while it was copied."""

    code = "tag_never_settles"
    retryable = True
    side = Side.SOURCE

    def __init__(self, task: Task) -> None:
        super().__init__(f"the source's tag {task.tag!r} moved {_MOST_MOVES} times while it was copied")
