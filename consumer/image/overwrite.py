"""Decides whether content that stands under the task's tag at the destination may be overwritten."""

from consumer.image.job import Job
from consumer.task import NOT_OVERRIDDEN, OTHER_CONTENT, NotAdmitted
from schemas.completions import Side, TaskError
from schemas.names import Digest


async def check(job: Job, digest: Digest) -> None:
    """Checks that `digest` may be written under the task's tag.

    A rule with `override: false` overwrites nothing. The fill of a replica does not overwrite what cannot have come
    from its instance: somebody used that registry before, and should decide.

    Raises:
        NotAdmitted: It may not be overwritten.
    """
    task = job.task
    if task.rule.override and not task.is_fill:
        return
    found = await job.destination.resolve(task.destination_repository, task.reference)
    if found is None or found.digest == digest:
        return
    if not task.rule.override:
        message = f"the destination's tag names {found.digest} and is left so; the source's names {digest}"
        raise NotAdmitted(TaskError(code=NOT_OVERRIDDEN, side=Side.MESH, message=message))
    if not await job.source_has(found.digest):
        message = (
            f"the replica's registry holds {found.digest[:19]} here, which its instance does not have; "
            f"`regmesh sync {task.rule.name} --repository {task.repository}` overwrites it"
        )
        raise NotAdmitted(TaskError(code=OTHER_CONTENT, side=Side.MESH, message=message[:256]))
