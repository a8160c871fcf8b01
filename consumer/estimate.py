"""A dry run's end: what the copy would send. Asks the destination which blobs it has, and writes nothing anywhere."""

import asyncio
from collections.abc import Iterable

from consumer.tally import Tally
from consumer.task import DRY_RUN, Plan, Task
from mesh.registry.port import Descriptor, Registry
from mesh.together import all_of
from schemas.completions import Side, TaskError

_ASK_TOGETHER = 4


async def estimate(steps: Plan, task: Task, destination: Registry, tally: Tally) -> TaskError:
    """`bytes_skipped` becomes what is there already, so the rest of `bytes_total` is what would be sent or mounted."""
    lanes = asyncio.Semaphore(_ASK_TOGETHER)

    async def missing(blob: Descriptor) -> bool:
        async with lanes:
            return await destination.blob_size(task.destination_repository, blob.digest) is None

    answers = await all_of(missing(blob) for blob in steps.blobs)
    absent = [blob for blob, is_missing in zip(steps.blobs, answers, strict=True) if is_missing]
    tally.bytes_skipped = tally.bytes_total - _bytes(absent)
    text = (
        f"would copy {len(absent)} of {len(steps.blobs)} blobs, {_bytes(absent)} of {tally.bytes_total} bytes"
    )
    return TaskError(code=DRY_RUN, side=Side.MESH, message=text)


def _bytes(blobs: Iterable[Descriptor]) -> int:
    return sum(blob.size for blob in blobs)
