"""Estimates what a copy would send, for dry runs. Only asks the destination which blobs it has."""

import asyncio
from collections.abc import Iterable

from cachetools import LRUCache

from consumer.image.plan import Plan
from consumer.progress import TaskProgress
from consumer.task import DRY_RUN, Task
from mesh.concurrency import all_of
from mesh.registry.port import Descriptor, Registry
from schemas.completions import Side, TaskError
from schemas.names import Digest, PlaceName

_CONCURRENT_REQUESTS = 4
_MOST_COUNTED = 50_000


class CountedBlobs:
    """Blobs that an agent counted for one tag of a dry run: other tags of it would not send them again.

    The number is bounded. Beyond it, and among several agents, some blobs are counted twice.
    """

    def __init__(self) -> None:
        self._task_ids = LRUCache[tuple[str, PlaceName, Digest], str](_MOST_COUNTED)

    def count(self, task: Task, digest: Digest) -> bool:
        """Counts the blob for a task; returns False when another task of its execution counted it before."""
        key = (task.execution_id, task.destination.name, digest)
        return self._task_ids.setdefault(key, task.task_id) == task.task_id


async def estimate(
    steps: Plan, task: Task, destination: Registry, progress: TaskProgress, counted: CountedBlobs
) -> TaskError:
    """Returns what a dry run ends with, and sets `bytes_skipped` of its progress.

    That is what the destination has and what another tag of the execution brings; the rest of `bytes_total` would be
    sent or mounted.
    """
    permits = asyncio.Semaphore(_CONCURRENT_REQUESTS)

    async def missing(blob: Descriptor) -> bool:
        async with permits:
            return await destination.blob_size(task.destination_repository, blob.digest) is None

    answers = await all_of(missing(blob) for blob in steps.blobs)
    absent = [blob for blob, is_missing in zip(steps.blobs, answers, strict=True) if is_missing]
    sent = [blob for blob in absent if counted.count(task, blob.digest)]
    progress.bytes_skipped = progress.bytes_total - _bytes(sent)
    text = (
        f"would copy {len(sent)} of {len(steps.blobs)} blobs, {_bytes(sent)} of {progress.bytes_total} bytes"
    )
    if shared := len(absent) - len(sent):
        text += f"; {shared} come{'s' if shared == 1 else ''} with other tags"
    return TaskError(code=DRY_RUN, side=Side.MESH, message=text)


def _bytes(blobs: Iterable[Descriptor]) -> int:
    return sum(blob.size for blob in blobs)
