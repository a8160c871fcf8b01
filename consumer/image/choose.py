"""What the rule wants of what the source has: all of an image, the platforms it names of an index, or nothing."""

from functools import partial

from consumer.image import examine, select, survey
from consumer.image.job import Job
from consumer.task import FILTERED, Image, NotAdmitted, Task
from mesh.errors import clean
from mesh.rules.matching.compiled_rule import CompiledRule
from schemas.completions import Side, TaskError
from schemas.names import Digest


def takes_parts(task: Task) -> bool:
    """What the destination's tag names does not tell alone whether all is there that the rule wants."""
    return CompiledRule(task.rule).takes_parts


async def choose(job: Job, digest: Digest) -> Image | None:
    """None when the source does not have it (yet); `NotAdmitted` when a filter does not hold, and it says which.

    Configs are read only where a filter asks for them.
    """
    rule = CompiledRule(job.task.rule)
    image = await survey.read_image(job.source, job.task, digest, leave_out=partial(select.left_out, rule))
    if image is None:
        return None
    configs = await examine.read_configs(job.source, job.task, select.asked(rule, image))
    chosen = select.narrow(rule, image, configs)
    job.progress.resource = select.resource_of(chosen)
    miss = select.miss(rule, image, chosen, configs)
    if miss is not None:
        message = clean(f"rule {job.task.rule.name!r}: {miss}")
        raise NotAdmitted(TaskError(code=FILTERED, side=Side.MESH, message=message))
    return chosen
