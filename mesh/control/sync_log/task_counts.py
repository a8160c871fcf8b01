"""Counts of ended tasks by rule, minute and hour: how fast tasks end, and how many keep a freshness promise.

They are written with the sync log, so that nobody has to scan it. A minute is kept for an hour and an hour for a day,
so their number depends on the rules that have work, and not on the number of tasks. Each task counts once, at its first
end.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, and_, case, delete, func, insert, or_, select, update

from mesh.control.storage.database import Database
from mesh.control.storage.tables import task_counts
from mesh.control.sync_log.ended_tasks import Kept, TaskCounts
from mesh.rules.state import MeshState
from schemas.completions import Completion, Status
from schemas.durations import parse_duration

Promises = Mapping[str, int]  # in seconds, by rule or replica; without those that promise nothing

NO_PROMISE = 0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)
_SPANS = (_MINUTE, _HOUR)
_KEPT_FOR = {_MINUTE: timedelta(minutes=62), _HOUR: timedelta(hours=26)}
_IN_PLACE = frozenset(
    {"already_there", "already_gone"}
)  # codes of skipped tasks whose change had been applied

# The windows that counts are read for, and the span of the counts that each is summed up from.
WINDOWS: Mapping[str, tuple[timedelta, timedelta]] = {
    "5m": (timedelta(minutes=5), _MINUTE), "30m": (timedelta(minutes=30), _MINUTE), "1h": (_HOUR, _MINUTE),
    "6h": (6 * _HOUR, _HOUR), "1d": (24 * _HOUR, _HOUR),
}  # fmt: skip


def promises_of(state: MeshState) -> dict[str, int]:
    """Returns the freshness promises of the declared rules and replicas."""
    found = {str(rule.name): rule.freshness for rule in (*state.rules(), *state.replica_rules())}
    return {
        name: int(parse_duration(freshness).total_seconds())
        for name, freshness in found.items()
        if freshness is not None
    }


def counts_for_promise(end: Completion) -> bool:
    """Checks whether a task says how fresh a destination is.

    Tasks of listings do not, since nobody knows when what they found was pushed. Nor do tasks that had nothing to
    apply (filtered, superseded, refused) or were stopped by a human.
    """
    if end.trigger != "event_based":
        return False
    is_in_place = end.error is not None and end.error.code in _IN_PLACE
    return end.status in (Status.SUCCEED, Status.FAILED) or (end.status is Status.SKIPPED and is_in_place)


def keeps(end: Completion, promise: int) -> bool:
    """Checks whether a task that counts ended within the promise (in seconds) of its event."""
    return end.status is not Status.FAILED and end.lag_ms <= promise * 1000


def add(connection: Connection, ends: Iterable[Completion], promises: Promises) -> None:
    """Adds the first ends of tasks."""
    ended, counted, kept = (Counter[tuple[str, int, timedelta, datetime]]() for _ in range(3))
    for end in ends:
        name = str(end.by)
        promise = promises.get(name, NO_PROMISE)
        counts = promise != NO_PROMISE and counts_for_promise(end)
        for span in _SPANS:
            key = name, promise, span, _EPOCH + (end.end_time - _EPOCH) // span * span
            ended[key] += 1
            counted[key] += counts
            kept[key] += counts and keeps(end, promise)
    column = task_counts.c
    for key in sorted(ended):  # in order, so that two writers do not deadlock
        name, promise, span, start = key
        values = {"rule": name, "promise": promise, "span": int(span.total_seconds()), "start": start}
        sums = {"ended": ended[key], "counted": counted[key], "kept": kept[key]}
        here = and_(*(column[field] == value for field, value in values.items()))
        changed = update(task_counts).where(here).values({it: column[it] + sums[it] for it in sums})
        if connection.execute(changed).rowcount == 0:
            connection.execute(insert(task_counts).values(**values, **sums))


class TaskCountStore:
    """Reads and cleans up the counts. Every method raises `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, promises: Promises, now: datetime) -> Mapping[str, TaskCounts]:
        """Returns the counts of all rules and replicas that had tasks within a day, by their present promises."""
        return await self._database.run(lambda connection: _read(connection, promises, now))

    async def delete_old(self, now: datetime) -> None:
        """Deletes what no window needs any more."""
        column = task_counts.c
        is_old = [
            (column.span == int(span.total_seconds())) & (column.start < now - kept_for)
            for span, kept_for in _KEPT_FOR.items()
        ]
        await self._database.run(
            lambda connection: connection.execute(delete(task_counts).where(or_(*is_old)))
        )


def _read(connection: Connection, promises: Promises, now: datetime) -> dict[str, TaskCounts]:
    ended = _ended(connection, now)
    by_name: dict[str, dict[str, Kept]] = {}
    for span in _SPANS:
        for name, promise, window, kept in _kept(connection, span, now):
            if promises.get(name) == promise:
                by_name.setdefault(name, {})[window] = kept
    found = {}
    for name in ended.keys() | by_name.keys():
        count, since = ended.get(name, (0, None))
        found[name] = TaskCounts(count, since, by_name.get(name, {}))
    return found


def _ended(connection: Connection, now: datetime) -> dict[str, tuple[int, datetime]]:
    column = task_counts.c
    recent = (column.span == int(_MINUTE.total_seconds())) & (column.start > now - WINDOWS["5m"][0])
    wanted = select(column.rule, func.sum(column.ended), func.min(column.start)).where(recent)
    found = connection.execute(wanted.group_by(column.rule)).all()
    return {name: (int(count), since) for name, count, since in found}


def _kept(connection: Connection, span: timedelta, now: datetime) -> Iterator[tuple[str, int, str, Kept]]:
    """Yields rule, promise, window and what was kept in it, of the windows that are summed up from one span."""
    column = task_counts.c
    windows: Sequence[tuple[str, timedelta]] = [
        (name, length) for name, (length, of_span) in WINDOWS.items() if of_span == span
    ]
    sums = [
        func.sum(case((column.start > now - length, column[field]), else_=0))
        for _, length in windows
        for field in ("counted", "kept")
    ]
    longest = max(length for _, length in windows)
    mine = (column.span == int(span.total_seconds())) & (column.start > now - longest)
    wanted = select(column.rule, column.promise, *sums).where(mine, column.promise != NO_PROMISE)
    for name, promise, *found in connection.execute(wanted.group_by(column.rule, column.promise)):
        for at, (window, _) in enumerate(windows):
            yield name, promise, window, Kept(int(found[2 * at]), int(found[2 * at + 1]))
