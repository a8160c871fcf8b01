"""Counts of ended tasks on a real database: each task once, by minute and hour, and trimmed."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from mesh.control.storage.database import Database
from mesh.control.storage.tables import task_counts
from mesh.control.sync_log.ended_tasks import Kept
from mesh.control.sync_log.store import SyncLog
from mesh.control.sync_log.task_counts import TaskCountStore, counts_for_promise, keeps
from schemas.completions import Completion, Status, TaskError
from tests.support.control_site import NOW, completion

RULE = "release-to-eu"
PROMISES = {RULE: 60}


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'control.db'}")
    yield opened
    await opened.close()


def ended(
    number: int, at: datetime, lag: float, status: Status = Status.SUCCEED, **changes: Any
) -> Completion:
    return completion(number, status, end_time=at, lag_ms=int(lag * 1000), **changes)


def skipped(code: str) -> TaskError:
    return TaskError(code=code, side="mesh", message="x")


@pytest.mark.parametrize(
    ("end", "counts", "kept"),
    [
        (ended(1, NOW, 60), True, True),
        (ended(1, NOW, 60.001), True, False),
        (ended(1, NOW, 1, Status.FAILED), True, False),
        (ended(1, NOW, 1, Status.SKIPPED, error=skipped("already_there")), True, True),
        (ended(1, NOW, 1, Status.SKIPPED, error=skipped("superseded")), False, True),
        (ended(1, NOW, 1, Status.STOPPED), False, True),
        (ended(1, NOW, 1, trigger="reconcile"), False, True),
    ],
)
def test_only_tasks_of_pushes_that_were_applied_or_failed_count(
    end: Completion, counts: bool, kept: bool
) -> None:
    assert (counts_for_promise(end), keeps(end, 60)) == (counts, kept)


async def test_each_task_counts_once_in_the_windows_in_which_it_ended(database: Database) -> None:
    log, store = SyncLog(database), TaskCountStore(database)
    ago = [timedelta(minutes=it) for it in (1, 2, 20, 50, 200, 20 * 60)]
    ends = [ended(number, NOW - it, 90 if number % 2 else 5) for number, it in enumerate(ago)]
    other = ended(90, NOW - timedelta(minutes=3), 500, rule="other")
    for _ in range(2):
        await log.write([*ends, other], [], NOW, promises=PROMISES)
    again = ended(1, NOW, 1)  # the same task, a better end
    assert list(await log.write([again], [], NOW, promises=PROMISES)) == []
    found = await store.read(PROMISES, NOW)
    assert found[RULE].kept == {
        "5m": Kept(2, 1), "30m": Kept(3, 2), "1h": Kept(4, 2), "6h": Kept(5, 3), "1d": Kept(6, 3),
    }  # fmt: skip
    assert (found[RULE].ended, found[RULE].ended_since) == (2, NOW - timedelta(minutes=2))
    assert (found["other"].ended, found["other"].kept) == (1, {})


async def test_another_promise_starts_anew(database: Database) -> None:
    await SyncLog(database).write([ended(1, NOW - timedelta(minutes=1), 90)], [], NOW, promises=PROMISES)
    found = await TaskCountStore(database).read({RULE: 300}, NOW)
    assert (found[RULE].ended, found[RULE].kept) == (1, {})


async def test_the_number_of_rows_depends_on_rules_and_time_and_old_ones_are_deleted(
    database: Database,
) -> None:
    log, store = SyncLog(database), TaskCountStore(database)

    async def rows() -> int:
        counted = select(func.count()).select_from(task_counts)
        return int(await database.run(lambda connection: connection.execute(counted).scalar_one()))

    for minute in range(3):
        at = NOW + timedelta(minutes=minute)
        await log.write([ended(100 * minute + it, at, 1) for it in range(50)], [], at, promises=PROMISES)
    assert await rows() == 3 + 1  # three minutes, one hour
    await store.delete_old(NOW + timedelta(minutes=63))
    assert await rows() == 2 + 1
    await store.delete_old(NOW + timedelta(hours=30))
    assert await rows() == 0
