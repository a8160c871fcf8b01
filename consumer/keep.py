"""`override: false`: a tag that names something else at the destination already stays as it is."""

from consumer.task import NOT_OVERRIDDEN, NotAdmitted, Task
from mesh.registry.port import Registry
from schemas.completions import Side, TaskError
from schemas.names import Digest


async def check(destination: Registry, task: Task, digest: Digest) -> None:
    """`NotAdmitted` when `digest` may not be written under the task's tag."""
    if task.rule.override:
        return
    found = await destination.resolve(task.destination_repository, task.reference)
    if found is not None and found.digest != digest:
        message = f"the destination's tag names {found.digest} and is left so; the source's names {digest}"
        raise NotAdmitted(TaskError(code=NOT_OVERRIDDEN, side=Side.MESH, message=message))
