"""The deletion rate limit: a rule that deletes more than its share of what it matches is held for a human. No I/O.

A window is ten minutes of deletions by one rule on one agent. Matched are the tags that the rule wants in those
repositories of the destination that it deletes from, counted at the first deletion in each of them.

The orphaned tags of a replica are counted before any of them is deleted, and are held as a whole: an instance that was
emptied by mistake must not empty its replica, neither at once nor by a twentieth each day.
"""

from dataclasses import dataclass, field

from consumer.task import Task
from schemas.events import OrphanedTagCount
from schemas.names import ObjectName, Repository, Tag
from schemas.rules import DEFAULT_DELETION_SHARE

WINDOW_SECONDS = 600.0
ALWAYS = 20  # tags of a window that are deleted whatever the share


def may_delete(before: int, matched: int, share: int) -> bool:
    """Returns whether one more tag may be deleted after `before` in this window; `share` is in percent of `matched`."""
    return before < ALWAYS or (before + 1) * 100 <= share * matched


def may_prune(found: OrphanedTagCount, share: int) -> bool:
    """Returns whether orphaned tags may be deleted. An instance without any tag is more likely broken than empty."""
    return found.tags < found.of and may_delete(found.tags - 1, found.of, share)


def prune_refusal(task: Task) -> str | None:
    """Returns why the deletion of an orphaned tag is held, or None. Announced deletions are not limited here."""
    part, share = task.event.part_of, min(task.rule.deletion_share, DEFAULT_DELETION_SHARE)
    found = part.surplus if part is not None else None
    if found is None:
        return (
            f"held for a human: the orphaned tags were not counted; `regmesh retry {task.task_id}` deletes it"
        )
    if may_prune(found, share):
        return None
    return (
        f"held for a human: the instance lacks {found.tags} of {found.of} tags without any event, "
        f"and {share} % may be deleted; `regmesh retry {task.task_id}` deletes it"
    )


@dataclass(slots=True)
class _Window:
    deleted: dict[tuple[str, Tag | None], float] = field(default_factory=dict)  # when, oldest first
    matched: dict[Repository, int] = field(default_factory=dict)

    def forget(self, before: float) -> None:
        """Drops earlier deletions; with the last one the window is over, and tags are counted again."""
        while self.deleted and (oldest := next(iter(self.deleted.items())))[1] <= before:
            del self.deleted[oldest[0]]
        if not self.deleted:
            self.matched = {}


class DeletionRateLimit:
    """Counts the deletions of one agent. Times are in seconds of its monotonic clock."""

    def __init__(self) -> None:
        self._windows: dict[ObjectName, _Window] = {}

    def has_counted(self, task: Task, now: float) -> bool:
        """Returns whether the tags of the task's repository were counted in this window."""
        window = self._windows.setdefault(task.rule.name, _Window())
        window.forget(now - WINDOW_SECONDS)
        return task.destination_repository in window.matched

    def count(self, task: Task, matched: int) -> None:
        """Records how many tags of the task's repository at the destination the rule wants."""
        self._windows.setdefault(task.rule.name, _Window()).matched[task.destination_repository] = matched

    def refusal(self, task: Task, now: float, *, held_as: str | None = None) -> str | None:
        """Returns why the deletion is held; when it is not, counts it once, however often it is attempted.

        `held_as` is the id of the task to retry, when `task` is only one tag of what that deletes.
        """
        window = self._windows.setdefault(task.rule.name, _Window())
        key, of, share = (task.task_id, task.tag), sum(window.matched.values()), task.rule.deletion_share
        if key in window.deleted:
            return None
        if may_delete(len(window.deleted), of, share):
            window.deleted[key] = now
            return None
        return (
            f"held for a human: {len(window.deleted)} of {of} tags were deleted within "
            f"{WINDOW_SECONDS / 60:.0f} minutes, and the rule may delete {share} %; "
            f"`regmesh retry {held_as or task.task_id}` deletes it"
        )
