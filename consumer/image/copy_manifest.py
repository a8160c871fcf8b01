"""Writes manifests unchanged, children before what names them, and the tag last."""

from consumer.image.job import Job
from consumer.image.plan import Image, Plan
from mesh.errors import ContentMismatch, NotFound, RegistryError, Rejected, SparseRefused
from mesh.registry.port import Manifest
from schemas.completions import Side

_SERVER_FAULTS = 500  # statuses from here on may be a proxy's, whatever the registry did


async def copy_manifests(
    job: Job, plan: Plan, *, resend: bool = False, root_is_missing: bool = False
) -> None:
    """Writes each manifest by digest unless the destination has it; with `resend` in any case.

    `root_is_missing` says that the last one is known to be missing, which saves a request.

    Raises:
        SparseRefused: The registry takes no index without all its children, and the rule copies parts of it.
    """
    repository = job.task.destination_repository
    for manifest in plan.manifests:
        is_missing = resend or (root_is_missing and manifest is plan.manifests[-1])
        if is_missing or not await _is_there(job, manifest):
            try:
                await job.destination.write_manifest(repository, manifest.digest, manifest)
            except (Rejected, NotFound) as error:
                if manifest.digest in plan.sparse:
                    raise _sparse_refused(error) from error
                raise


async def write_tag(job: Job, image: Image) -> None:
    """Writes the tag, and checks by HEAD that the destination answers the image's digest.

    Raises:
        ContentMismatch: It answers another digest or none.
    """
    repository, tag = job.task.destination_repository, job.task.reference
    await _write_tag(job, image)
    found = await job.destination.resolve(repository, tag)
    if found is None or found.digest != image.digest:
        answered = found.digest if found is not None else "nothing"
        message = f"after {tag!r} was written, the registry answers {answered}, not {image.digest}"
        raise ContentMismatch(message, side=Side.DESTINATION)


async def _write_tag(job: Job, image: Image) -> None:
    """Writes the tag. A write that ends without the registry's answer may still land at any time."""
    was_unanswered, job.progress.unanswered_write = job.progress.unanswered_write, True
    try:
        await job.destination.write_manifest(job.task.destination_repository, job.task.reference, image.root)
    except RegistryError as error:
        if error.status is not None and error.status < _SERVER_FAULTS:
            job.progress.unanswered_write = was_unanswered
        raise
    job.progress.unanswered_write = was_unanswered


def _sparse_refused(error: RegistryError) -> SparseRefused:
    advice = "it takes no index without all its images; use mode rebuilt or full, or allow it in the registry"
    return SparseRefused(f"{advice}: {error}", side=Side.DESTINATION, status=error.status)


async def _is_there(job: Job, manifest: Manifest) -> bool:
    return await job.destination.resolve(job.task.destination_repository, manifest.digest) is not None
