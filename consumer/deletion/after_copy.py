"""Turns a copy whose tag is missing at the source into a deletion, under a rule that follows deletions. Pure.

No event may ask for that deletion. When a tag moves and its new digest is deleted, a registry may announce only that
digest. A destination that was away never had it, and still holds the older digest under the tag.
"""

from dataclasses import replace

from consumer.task import ALREADY_GONE, DELETION_HELD, SOURCE_GONE, Outcome, Task
from mesh.errors import clean
from mesh.registry.referrers import is_fallback
from schemas.completions import Status
from schemas.names import Digest
from schemas.rules import EventBased


def deletion_of(task: Task, copied: Outcome) -> Task | None:
    """Returns the deletion that a copy with this outcome becomes, or None.

    A fill becomes none: the orphaned tags of a replica are counted and pruned as a whole.
    """
    rule, tag = task.rule, task.tag
    if copied.error is None or copied.error.code != SOURCE_GONE or task.is_dry_run or task.is_fill:
        return None
    if tag is None or is_fallback(tag) or not rule.deletion or not isinstance(rule.trigger, EventBased):
        return None
    return replace(task, operation="delete")


def outcome_of_copy(copied: Outcome, deleted: Outcome, digest: Digest | None) -> Outcome | None:
    """Returns how the copy of `digest` ends when its deletion did nothing; None when the deletion is reported."""
    error = deleted.error
    if deleted.status is not Status.SKIPPED or error is None or error.code == DELETION_HELD:
        return None
    if copied.error is None or error.code == ALREADY_GONE:
        return replace(copied, digest=digest)
    message = clean(f"{copied.error.message}; the destination's stays, {error.code}: {error.message}")
    return replace(copied, digest=digest, error=copied.error.model_copy(update={"message": message}))
