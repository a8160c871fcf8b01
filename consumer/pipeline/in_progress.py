"""Which tasks of this region were begun and have not ended, by whichever agent.

A task writes its progress before it writes anything at the destination, and its end takes that away. So when a task is
delivered again after a crash and finds the digest there already, this tells whether it was our work: then the task has
succeeded, and its webhook must say so, instead of having been skipped.
"""

from mesh.log.port import Record
from schemas import codec
from schemas.completions import Operation, Progress


class InProgressTasks:
    """Fed by a table of `mesh.<region>.status`."""

    def __init__(self) -> None:
        self._tasks: dict[str, Operation] = {}

    def get(self, task_id: str) -> Operation | None:
        """What it had begun to do."""
        return self._tasks.get(task_id)

    def apply(self, record: Record) -> None:
        """Take one record over; `DecodeError` when it is no record of ours."""
        if record.value is not None and codec.kind_of(record.value) == Progress.kind:
            self._tasks[record.key] = codec.decode(record.value, Progress).operation
        else:
            self._tasks.pop(record.key, None)
