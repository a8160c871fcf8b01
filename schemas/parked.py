"""Parked tasks: kept durably until they are attempted again, or while they run longer than the log can wait."""

from datetime import datetime, timedelta
from typing import ClassVar

from pydantic import Field

from schemas.completions import Completion, Status, TaskError, TaskRecord
from schemas.envelope import Time, make_id
from schemas.events import Event

# Codes of tasks that did not fail: their agent runs them, or has them queued, and parked them to commit its offsets.
STILL_RUNNING, STILL_QUEUED = "still_running", "still_queued"
LOOK_AGAIN = "look_again"  # no task failed: a tag is looked at again, as an earlier write of it may land late

_OWN_FIELDS = frozenset({"id", "time", "version"})  # differ from record to record of one task


class Parked(TaskRecord):
    """A task between two rounds of attempts, or one that `is_active`. Topic `mesh.<region>.retry`, key task id.

    Its `status` is `Pending`; a tombstone closes it. The agent that wrote it runs it again at `not_before`; when that
    agent is not live any more, another one does.
    """

    kind: ClassVar[str] = "parked"

    event: Event  # the whole event, by which the task is matched again
    agent: str
    error: TaskError  # of the last attempt; an active task has one of the codes above
    rounds: int = Field(ge=1)
    first_parked: Time
    not_before: Time
    begun: bool = False  # whether something was written at the destination

    @property
    def key(self) -> str:
        """Returns the task's id."""
        return self.task_id

    @property
    def is_active(self) -> bool:
        """Returns whether the task did not fail: while the agent that wrote it is live, that agent ends it."""
        return self.error.code in (STILL_RUNNING, STILL_QUEUED)

    @property
    def is_look(self) -> bool:
        """Returns whether it only looks at a tag again; it is neither counted nor shown as a parked task."""
        return self.error.code == LOOK_AGAIN

    def ended(self, status: Status, error: TaskError | None, now: datetime) -> Completion:
        """Returns the completion of a task that ends without being run again."""
        fields = {
            field: getattr(self, field) for field in TaskRecord.model_fields if field not in _OWN_FIELDS
        }
        return Completion(
            **fields | {"status": status},
            id=make_id("completion", self.task_id, status),
            time=now,
            end_time=now,
            lag_ms=max(0, int((now - self.event.occurred_at) / timedelta(milliseconds=1))),
            error=error,
        )
