"""How much a rule deletes at once: more than its share of what it matches is held for a human. No I/O.

A burst is ten minutes of one rule on one agent. What is counted as matched are the tags that the rule wants in the
destination's repositories which it deletes from, as many as there were when the burst came to each of them.

What a replica was found to hold still is counted as a whole before any of it is deleted, and is held as a whole: half
of an emptied instance is not what anybody wants, and neither is a twentieth each day.
"""

from dataclasses import dataclass, field

from consumer.task import Task
from schemas.events import Surplus
from schemas.names import ObjectName, Repository, Tag
from schemas.rules import DEFAULT_DELETION_SHARE

WINDOW_SECONDS = 600.0
ALWAYS = 20  # tags of a burst that are deleted whatever the share


def may_delete(before: int, matched: int, share: int) -> bool:
    """Whether one more tag may go when `before` went in this burst; `share` in percent of `matched`."""
    return before < ALWAYS or (before + 1) * 100 <= share * matched


def may_prune(found: Surplus, share: int) -> bool:
    """Whether what nobody announced may go. An instance that shows no tag at all is broken sooner than emptied."""
    return found.tags < found.of and may_delete(found.tags - 1, found.of, share)


def prune_refusal(task: Task) -> str | None:
    """Why the deletion is held. A replica follows every deletion that is announced, but not every one that is found."""
    part, share = task.event.part_of, min(task.rule.deletion_share, DEFAULT_DELETION_SHARE)
    found = part.surplus if part is not None else None
    if found is None:
        return f"held for a human: nobody counted what is surplus; `regmesh retry {task.task_id}` deletes it"
    if may_prune(found, share):
        return None
    return (
        f"held for a human: the instance has {found.tags} of {found.of} tags no more, nobody announced that, "
        f"and {share} % may go so; `regmesh retry {task.task_id}` deletes it"
    )


@dataclass(slots=True)
class _Window:
    gone: dict[tuple[str, Tag | None], float] = field(default_factory=dict)  # when, oldest first
    matched: dict[Repository, int] = field(default_factory=dict)

    def forget(self, before: float) -> None:
        """What lies longer back; with the last of it the burst is over, and what it counted is counted anew."""
        while self.gone and (oldest := next(iter(self.gone.items())))[1] <= before:
            del self.gone[oldest[0]]
        if not self.gone:
            self.matched = {}


class DeletionRateLimit:
    """Of one agent. Times are of its monotonic clock."""

    def __init__(self) -> None:
        self._bursts: dict[ObjectName, _Window] = {}

    def knows(self, task: Task, now: float) -> bool:
        """Whether the tags of the task's repository are counted already."""
        burst = self._bursts.setdefault(task.rule.name, _Window())
        burst.forget(now - WINDOW_SECONDS)
        return task.destination_repository in burst.matched

    def count(self, task: Task, matched: int) -> None:
        """So many tags of the task's repository at the destination are such that the rule wants them."""
        self._bursts.setdefault(task.rule.name, _Window()).matched[task.destination_repository] = matched

    def refusal(self, task: Task, now: float, *, held_as: str | None = None) -> str | None:
        """Why the deletion is held; with None it counts as done, however often it is tried.

        `held_as`: the task that ends with it, when `task` is but one tag of what that deletes.
        """
        burst = self._bursts.setdefault(task.rule.name, _Window())
        key, of, share = (task.task_id, task.tag), sum(burst.matched.values()), task.rule.deletion_share
        if key in burst.gone:
            return None
        if may_delete(len(burst.gone), of, share):
            burst.gone[key] = now
            return None
        return (
            f"held for a human: {len(burst.gone)} of {of} tags went within {WINDOW_SECONDS / 60:.0f} minutes, "
            f"and the rule may delete {share} %; `regmesh retry {held_as or task.task_id}` deletes it"
        )
