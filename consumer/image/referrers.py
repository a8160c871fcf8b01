"""Copies what is attached to an image (signatures, SBOMs, attestations): after its manifest, before its tag.

A referrer follows its subject whatever the rule's tag and type filters. Registries list referrers in two ways: by the
referrers API (OCI distribution spec, "Listing Referrers"), or in an index under the fallback tag, which clients
maintain. At the destination they are listed in the destination's way, beside what others listed there. A referrer's
bytes are never changed.

`copy` copies all that the source has about an image; `catch_up` copies what a destination that has the image lacks;
`follow` is the task of a referrer that was pushed by itself. What cannot be copied is left out of the first two: it
never keeps an image away.
"""

from consumer.image import survey
from consumer.image.job import Job
from consumer.image.plan import Image
from consumer.image.referrer_walk import ReferrerWalk
from consumer.task import (
    ALREADY_THERE,
    DRY_RUN,
    NO_REFERRER,
    SOURCE_GONE,
    SUBJECT_NOT_THERE,
    Outcome,
    skipped,
    superseded,
)
from mesh.errors import NotFound
from mesh.registry.referrers import (
    read_subject,
    subject_named,
)
from schemas.completions import Status
from schemas.names import Digest

_LISTING_VALID_SECONDS = 300.0


async def copy(job: Job, image: Image, *, resend: bool = False) -> None:
    """Copies all that the source has about the image and its children, recursively."""
    walk = ReferrerWalk(job, image.digest, resend=resend)
    with walk.leaving_out():
        if subject := read_subject(image.root):
            await walk.attach(subject, [image.digest])
    await walk.about([manifest.digest for manifest, _ in image.manifests])


async def catch_up(job: Job, digest: Digest) -> None:
    """Copies what the source lists about an image that the destination has; one request when that is nothing."""
    if job.task.is_dry_run:
        return
    job.progress.start_attached()
    walk = ReferrerWalk(job, digest, resend=False)
    with walk.leaving_out():
        if await job.source.referrers(job.task.repository, digest, has_no_tag=_saw_no_tag(job, digest)):
            job.progress.bytes_total = job.progress.bytes_skipped = 0
            await walk.about([digest])


def _saw_no_tag(job: Job, digest: Digest) -> bool:
    """Whether the listing that found the image saw no fallback tag; a later referrer has an event of its own."""
    event = job.task.event
    age = (job.clock.now() - event.time).total_seconds()
    return event.has_referrers_tag is False and event.digest == digest and age < _LISTING_VALID_SECONDS


async def follow(job: Job, *, resend: bool = False) -> Outcome:
    """Runs the task of a referrer that was pushed by itself; without its subject, it is copied with that later."""
    job.progress.start_pass("artifact", ())
    try:
        subject = await _subject(job)
    except NotFound:
        return _missing()
    if subject is None:
        return skipped(NO_REFERRER, "it is about nothing else")
    if not await survey.has_content(job, subject):
        return skipped(SUBJECT_NOT_THERE, f"it will come with its subject, {subject}, which is not there")
    return await _copy_pushed(job, subject, resend=resend)


async def _copy_pushed(job: Job, subject: Digest, *, resend: bool) -> Outcome:
    """Copies what was pushed, and what is about it, as that may have been pushed first."""
    digest = await survey.settled_digest(job, job.task.digest)
    if job.control.superseded.is_set():
        return superseded()
    if digest is None:
        return _missing()
    job.progress.digest, job.progress.subject = digest, subject
    walk = ReferrerWalk(job, subject, resend=resend)
    if job.task.is_dry_run:
        if await walk.is_there(digest, subject):
            return skipped(ALREADY_THERE, "the destination has this", digest)
        return skipped(DRY_RUN, "it would be copied to its subject", digest)
    await walk.about(await walk.copy_pushed(digest, subject))
    if walk.copied:
        return Outcome(Status.SUCCEED, digest)
    return skipped(ALREADY_THERE, "the destination has this", digest)


def _missing() -> Outcome:
    return skipped(SOURCE_GONE, "the source does not have this any more")


async def _subject(job: Job) -> Digest | None:
    """Of a tag by its name; of an untagged push by reading it, once for all rules that want it."""
    if job.task.tag is not None:
        return subject_named(job.task.tag)
    digest, known = Digest(job.task.reference), job.services.subjects
    if digest not in known:
        known[digest] = read_subject(await job.source.read_manifest(job.task.repository, digest))
    return known[digest]
