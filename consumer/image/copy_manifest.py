"""Manifests as they are, children before what names them, then the tag, then a look that it is so."""

from consumer.task import Image, Plan, Task
from mesh.errors import ContentMismatch, NotFound, RegistryError, Rejected, SparseRefused
from mesh.registry.port import Manifest, Registry
from schemas.completions import Side


async def copy_manifests(
    plan: Plan, task: Task, destination: Registry, *, resend: bool = False, root_is_missing: bool = False
) -> None:
    """PUT each by digest unless it is there (with `resend`: in any case); the tag is not touched.

    `root_is_missing`: the last one was asked for and is not there.

    `SparseRefused` when the registry wants all below an index of which the rule copies parts.
    """
    for manifest in plan.manifests:
        is_missing = resend or (root_is_missing and manifest is plan.manifests[-1])
        if is_missing or not await _is_there(manifest, task, destination):
            try:
                await destination.write_manifest(task.destination_repository, manifest.digest, manifest)
            except (Rejected, NotFound) as error:
                if manifest.digest in plan.sparse:
                    raise _sparse_refused(error) from error
                raise


async def write_tag(image: Image, task: Task, destination: Registry) -> None:
    """Point the tag at the image, and see by HEAD that the destination answers its digest."""
    await destination.write_manifest(task.destination_repository, task.reference, image.root)
    found = await destination.resolve(task.destination_repository, task.reference)
    if found is None or found.digest != image.digest:
        answered = found.digest if found is not None else "nothing"
        message = f"after {task.reference!r} was written, the registry answers {answered}, not {image.digest}"
        raise ContentMismatch(message, side=Side.DESTINATION)


def _sparse_refused(error: RegistryError) -> SparseRefused:
    advice = (
        "it takes no index without all its images; use mode rebuilt or full, or let the registry allow it"
    )
    return SparseRefused(f"{advice}: {error}", side=Side.DESTINATION, status=error.status)


async def _is_there(manifest: Manifest, task: Task, destination: Registry) -> bool:
    return await destination.resolve(task.destination_repository, manifest.digest) is not None
