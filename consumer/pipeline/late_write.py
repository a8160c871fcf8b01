"""Looks at a tag again some time after a write of it was not answered, as that write may still land. Pure.

A PUT may wait in a proxy while its agent is killed, or gives it up. The tag is then written by another run of the task,
or by a newer push, and afterwards the PUT lands and moves it back; no registry offers a condition for a PUT that would
prevent it. So the task is followed by looks: tasks that copy whatever the source's tag names at their time. They wait
where parked tasks do, so that they survive their agent; they end unnoticed unless they repair something.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from consumer.task import ALREADY_THERE, SOURCE_GONE, SUPERSEDED, Outcome, Task
from schemas.completions import Side, TaskError
from schemas.envelope import make_id
from schemas.parked import LOOK_AGAIN
from schemas.rules import EventBased

_WAITS = (
    15.0,
    30.0,
    45.0,
    210.0,
)  # seconds before each look; proxies end requests after 60 s, some after 300 s
_FOUND_NOTHING = frozenset({ALREADY_THERE, SOURCE_GONE, SUPERSEDED})


def look_at(task: Task, now: datetime) -> Task | None:
    """Returns the task that looks at the tag of `task` again, or None where there is nothing to look at.

    The look has no digest, so it asks the source, and a time of its own, so it is for the rule as it is now.
    """
    is_copy_of_tag = task.operation == "copy" and task.tag is not None and not task.is_dry_run
    if not is_copy_of_tag or not isinstance(task.rule.trigger, EventBased):
        return None
    event = task.event.model_copy(
        update={"id": make_id("look", task.task_id), "time": now, "digest": None, "part_of": None}
    )
    return replace(task, event=event, digest=None)


def next_look(number: int, now: datetime) -> datetime | None:
    """Returns when the look with this number, from 1, is due; None after the last."""
    return now + timedelta(seconds=_WAITS[number - 1]) if number <= len(_WAITS) else None


def found_nothing(outcome: Outcome) -> bool:
    """Returns whether a look ended without repairing anything, and without a failure."""
    return outcome.error is not None and outcome.error.code in _FOUND_NOTHING


def reason() -> TaskError:
    """Returns what the record of a look has in place of an error."""
    message = "an earlier write of the tag was not answered, and may land late; the tag is looked at again"
    return TaskError(code=LOOK_AGAIN, side=Side.DESTINATION, message=message)
