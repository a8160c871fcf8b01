"""What the agents of a region report on `mesh.<region>.status`: which of them are live, and what is in progress.

A task is marked in progress before its first write at the destination, and its end removes the mark. So when a task is
delivered again after a crash and its digest is at the destination already, the mark says that an earlier run wrote it:
the task has succeeded, and its webhook has to say so, instead of having been skipped.
"""

from collections.abc import Callable
from datetime import datetime

from mesh.log.port import Record
from schemas import codec
from schemas.completions import AGENT_LIVES_FOR, Heartbeat, Operation, Progress


class RegionStatus:
    """Built from a table of `mesh.<region>.status`."""

    def __init__(self, log_time: Callable[[], datetime]) -> None:
        """`log_time` is the clock that live agents are judged by, as `Table.log_time` of the same table."""
        self._log_time = log_time
        self._heartbeats: dict[str, datetime] = {}
        self._in_progress: dict[str, Operation] = {}

    def apply(self, record: Record) -> None:
        """Applies one record.

        Raises:
            DecodeError: The record is neither a heartbeat nor progress.
        """
        if record.value is None:
            self._heartbeats.pop(record.key, None)
            self._in_progress.pop(record.key, None)
        elif (kind := codec.kind_of(record.value)) == Heartbeat.kind:
            codec.decode(record.value, Heartbeat)
            self._heartbeats[record.key] = record.written_at
        elif kind == Progress.kind:
            self._in_progress[record.key] = codec.decode(record.value, Progress).operation

    def live_agents(self) -> set[str]:
        """Returns the names of the agents whose last heartbeat is recent."""
        oldest = self._log_time() - AGENT_LIVES_FOR
        return {name for name, written_at in self._heartbeats.items() if written_at > oldest}

    def operation_in_progress(self, task_id: str) -> Operation | None:
        """Returns what the task is marked as doing, by whichever agent; None when it is not in progress."""
        return self._in_progress.get(task_id)
