"""Tasks that could not be ended yet, kept durably: to be tried again, less and less often, or while they go on."""

from datetime import datetime, timedelta
from typing import ClassVar

from pydantic import Field

from schemas.completions import Completion, Status, TaskError, Work
from schemas.envelope import Time, make_id
from schemas.events import Event

# Codes of what did not fail: its agent runs it, or has it in a lane, and parked it so that it holds up nobody.
STILL_RUNNING, STILL_QUEUED = "still_running", "still_queued"

_OF_A_RECORD = frozenset({"id", "time", "version"})  # what each record has of its own


class Parked(Work):
    """A task between two rounds of tries, or one `in_hand`. Topic `mesh.<region>.retry`, key task id.

    Its `status` is `Pending`; a tombstone closes it. The agent that wrote it runs it again at `not_before`, or when it
    is gone another.
    """

    kind: ClassVar[str] = "parked"

    event: Event  # whole: by it the task is matched again
    agent: str
    error: TaskError  # of the last try; what is in hand has one of the codes above
    rounds: int = Field(ge=1)
    first_parked: Time
    not_before: Time
    begun: bool = False  # something of it was written at the destination

    @property
    def key(self) -> str:
        return self.task_id

    @property
    def in_hand(self) -> bool:
        """It did not fail: as long as the agent that wrote it lives, it comes to its end there."""
        return self.error.code in (STILL_RUNNING, STILL_QUEUED)

    def ended(self, status: Status, error: TaskError | None, now: datetime) -> Completion:
        """Its end, when it ends without being run again."""
        work = {field: getattr(self, field) for field in Work.model_fields if field not in _OF_A_RECORD}
        return Completion(
            **work | {"status": status},
            id=make_id("completion", self.task_id, status),
            time=now,
            end_time=now,
            lag_ms=max(0, int((now - self.event.occurred_at) / timedelta(milliseconds=1))),
            error=error,
        )
