"""Tasks that could not be ended yet: kept durably and tried again, less and less often."""

from typing import ClassVar

from pydantic import Field

from schemas.completions import TaskError, Work
from schemas.envelope import Time
from schemas.events import Event


class Parked(Work):
    """A task between two rounds of tries. Topic `mesh.<region>.retry`, key task id; a tombstone closes it.

    Its `status` is `Pending`. The agent that wrote it runs it again at `not_before`, or when it is gone another.
    """

    kind: ClassVar[str] = "parked"

    event: Event  # whole: by it the task is matched again
    agent: str
    error: TaskError  # of the last try
    rounds: int = Field(ge=1)
    first_parked: Time
    not_before: Time
    begun: bool = False  # something of it was written at the destination

    @property
    def key(self) -> str:
        return self.task_id
