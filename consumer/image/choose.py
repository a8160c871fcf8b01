"""Reads from the source what the rule wants of it: a whole image, some platforms of an index, or nothing."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

from consumer.image import select, survey
from consumer.image.job import Job
from consumer.image.plan import Image
from consumer.task import FILTERED, NotAdmitted, Task
from mesh.concurrency import all_of
from mesh.errors import clean
from mesh.registry.configs import Config, config_of, read_config
from mesh.registry.port import Manifest, Registry
from schemas.completions import Side, TaskError
from schemas.names import Digest

_CONCURRENT_READS = 4


async def wanted_image(job: Job, digest: Digest) -> Image | None:
    """Returns what the rule wants of `digest`, or None when the source does not have it (yet).

    Configs of images are read only if a filter needs them.

    Raises:
        NotAdmitted: A filter of the rule does not match; the refusal names it.
        ContentRefused: A manifest or config is not what it should be, or too large.
    """
    rule = job.task.compiled
    image = await survey.read_image(job, digest, leave_out=partial(select.left_out, rule))
    if image is None:
        return None
    configs = await _read_configs(job.source, job.task, select.needs_config(rule, image))
    chosen = select.narrow(rule, image, configs)
    job.progress.resource = select.resource_of(chosen)
    if (miss := select.miss(rule, image, chosen, configs)) is not None:
        message = clean(f"rule {job.task.rule.name!r}: {miss}")
        raise NotAdmitted(TaskError(code=FILTERED, side=Side.MESH, message=message))
    return chosen


async def _read_configs(
    source: Registry, task: Task, manifests: Sequence[Manifest]
) -> Mapping[Digest, Config]:
    """By the manifest's digest. A config over 4 MiB is refused."""
    permits = asyncio.Semaphore(_CONCURRENT_READS)

    async def read(manifest: Manifest) -> Config:
        async with permits, source.read_blob(task.repository, config_of(manifest)) as chunks:
            return read_config(b"".join([chunk async for chunk in chunks]))

    found = await all_of(read(manifest) for manifest in manifests)
    return {manifest.digest: config for manifest, config in zip(manifests, found, strict=True)}
