"""A copy whose tag is gone from the source: under a rule that follows deletions it becomes that tag's. Pure.

It has to. Of a tag that moved and whose new digest was deleted a registry may tell that digest alone. A destination
that was away never had it: what it holds under the tag is an older one, and no event names that.
"""

from dataclasses import replace

from consumer.task import ALREADY_GONE, DELETION_HELD, SOURCE_GONE, Outcome, Task
from mesh.errors import clean
from mesh.registry.referrers import is_fallback
from schemas.completions import Status
from schemas.names import Digest
from schemas.rules import EventBased


def deletion_of(task: Task, end: Outcome) -> Task | None:
    """What a copy that ended so becomes. A fill does not: what a replica holds too many of is counted as a whole."""
    rule, tag = task.rule, task.tag
    if end.error is None or end.error.code != SOURCE_GONE or task.is_dry_run or task.is_fill:
        return None
    if tag is None or is_fallback(tag) or not rule.deletion or not isinstance(rule.trigger, EventBased):
        return None
    return replace(task, operation="delete")


def stays(copy: Outcome, deletion: Outcome, digest: Digest | None) -> Outcome | None:
    """How the copy of `digest` ends where its deletion did nothing; None where the deletion is what is told."""
    error = deletion.error
    if deletion.status is not Status.SKIPPED or error is None or error.code == DELETION_HELD:
        return None
    if copy.error is None or error.code == ALREADY_GONE:
        return replace(copy, digest=digest)
    message = clean(f"{copy.error.message}; the destination's stays, {error.code}: {error.message}")
    return replace(copy, digest=digest, error=copy.error.model_copy(update={"message": message}))
