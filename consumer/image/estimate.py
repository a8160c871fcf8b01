"""Estimates what a copy would send, for dry runs. Only asks the destination which blobs it has."""

import asyncio
from collections.abc import Iterable

from consumer.image.job import Job
from consumer.image.plan import Plan
from consumer.task import DRY_RUN
from mesh.concurrency import all_of
from mesh.registry.port import Descriptor
from schemas.completions import Side, TaskError

_CONCURRENT_REQUESTS = 4


async def estimate(job: Job, plan: Plan) -> TaskError:
    """Returns what a dry run ends with, and sets `bytes_skipped` of its progress.

    That is what the destination has and what another tag of the execution brings; the rest of `bytes_total` would be
    sent or mounted.
    """
    task, progress, permits = job.task, job.progress, asyncio.Semaphore(_CONCURRENT_REQUESTS)

    async def is_missing(blob: Descriptor) -> bool:
        async with permits:
            return await job.destination.blob_size(task.destination_repository, blob.digest) is None

    answers = await all_of(is_missing(blob) for blob in plan.blobs)
    missing = [blob for blob, answer in zip(plan.blobs, answers, strict=True) if answer]
    sent = [blob for blob in missing if _counts_here(job, blob)]
    progress.bytes_skipped = progress.bytes_total - _bytes(sent)
    text = (
        f"would copy {len(sent)} of {len(plan.blobs)} blobs, {_bytes(sent)} of {progress.bytes_total} bytes"
    )
    if shared := len(missing) - len(sent):
        text += f"; {shared} come{'s' if shared == 1 else ''} with other tags"
    return TaskError(code=DRY_RUN, side=Side.MESH, message=text)


def _counts_here(job: Job, blob: Descriptor) -> bool:
    """Whether no other task of the execution counted the blob before: it is sent only once."""
    key = (job.task.execution_id, job.task.destination.name, blob.digest)
    return job.services.counted.setdefault(key, job.task.task_id) == job.task.task_id


def _bytes(blobs: Iterable[Descriptor]) -> int:
    return sum(blob.size for blob in blobs)
