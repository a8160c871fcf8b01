"""What an agent has still to do for each destination: so a replica's lag and the rest of its fill are told. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from consumer.pipeline.lanes import Entry
from schemas.completions import Waiting
from schemas.envelope import Time
from schemas.names import PlaceName
from schemas.parked import Parked


def count(entries: Iterable[Entry], parked: Iterable[Parked]) -> Mapping[PlaceName, Waiting]:
    """Of what waits or runs in lanes, and of what is parked; a parked one that runs again counts once."""
    since: dict[PlaceName, dict[str, Time]] = defaultdict(dict)
    left: dict[PlaceName, int] = defaultdict(int)
    for one in parked:
        since[one.destination_place][one.task_id] = one.event.occurred_at
    for entry in entries:
        if entry.task.is_dry_run:
            continue
        place, progress = entry.task.destination.name, entry.run.progress
        since[place][entry.task.task_id] = entry.task.event.occurred_at
        left[place] += max(0, progress.bytes_total - progress.bytes_transferred - progress.bytes_skipped)
    return {
        place: Waiting(tasks=len(times), oldest=min(times.values()), bytes_left=left[place])
        for place, times in since.items()
    }
