"""A dry run's end: what the copy would send. Asks the destination which blobs it has, and writes nothing anywhere."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable

from consumer.progress import TaskProgress
from consumer.task import DRY_RUN, Plan, Task
from mesh.concurrency import all_of
from mesh.registry.port import Descriptor, Registry
from schemas.completions import Side, TaskError
from schemas.names import Digest, PlaceName

_CONCURRENT_REQUESTS = 4
_MOST_REMEMBERED = 50_000


class Counted:
    """Blobs that a dry run counted for one of its tags: with the others they would not be sent again.

    Of one agent. Of more blobs than it remembers, and of several agents, some are counted twice.
    """

    def __init__(self) -> None:
        self._by: OrderedDict[tuple[str, PlaceName, Digest], str] = OrderedDict()  # the task that counted it

    def is_anothers(self, task: Task, digest: Digest) -> bool:
        """True when another task of the execution counted the blob; from now on it is counted."""
        key = (task.execution_id, task.destination.name, digest)
        by = self._by.setdefault(key, task.task_id)
        self._by.move_to_end(key)
        while len(self._by) > _MOST_REMEMBERED:
            self._by.popitem(last=False)
        return by != task.task_id


async def estimate(
    steps: Plan, task: Task, destination: Registry, progress: TaskProgress, counted: Counted
) -> TaskError:
    """`bytes_skipped` becomes what is there already or comes with another tag of the execution.

    So the rest of `bytes_total` is what would be sent or mounted.
    """
    lanes = asyncio.Semaphore(_CONCURRENT_REQUESTS)

    async def missing(blob: Descriptor) -> bool:
        async with lanes:
            return await destination.blob_size(task.destination_repository, blob.digest) is None

    answers = await all_of(missing(blob) for blob in steps.blobs)
    absent = [blob for blob, is_missing in zip(steps.blobs, answers, strict=True) if is_missing]
    sent = [blob for blob in absent if not counted.is_anothers(task, blob.digest)]
    progress.bytes_skipped = progress.bytes_total - _bytes(sent)
    text = (
        f"would copy {len(sent)} of {len(steps.blobs)} blobs, {_bytes(sent)} of {progress.bytes_total} bytes"
    )
    if shared := len(absent) - len(sent):
        text += f"; {shared} come{'s' if shared == 1 else ''} with other tags"
    return TaskError(code=DRY_RUN, side=Side.MESH, message=text)


def _bytes(blobs: Iterable[Descriptor]) -> int:
    return sum(blob.size for blob in blobs)
