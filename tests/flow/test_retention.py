"""What grows is trimmed: entries of the sync log, executions, and what killed agents left behind."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mesh.control.executions.retention import Retention as ExecutionRetention
from mesh.control.executions.store import Executions, backfill_id
from mesh.control.settings import ControlSettings
from mesh.control.storage.database import Database
from mesh.control.sync_log import log_query
from mesh.control.sync_log.retention import Retention
from mesh.control.sync_log.store import SyncLog
from mesh.control.sync_log.usage import Usage
from schemas.completions import Completion, Side, Status, TaskError
from schemas.executions import ExecutionListed, ExecutionOperation, ExecutionStart
from schemas.names import PlaceName, Region
from tests.support.control_site import MESH, NOW, Site, completion, control_site
from tests.support.manual_clock import ManualClock

DAY = timedelta(days=1)
SETTINGS = ControlSettings(sync_log_retention=40 * 86400, execution_retention=40 * 86400)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with control_site(tmp_path, running=False) as made:
        status, answer = await made.call("POST", "/api/v1/apply", MESH)
        assert status == 200, answer
        yield made


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'trimmed.db'}")
    yield opened
    await opened.close()


def _ended(number: int, days: int, **fields: Any) -> Completion:
    end = NOW + days * DAY
    return completion(number, **{"end_time": end, "time": end, **fields})


async def _tasks(log: SyncLog) -> list[str]:
    page = await log.read(log_query.parse({"limit": "1000"}, NOW))
    return [row["task_id"] for row in page.items]


async def test_old_entries_are_deleted_and_usage_stays_the_same(site: Site, database: Database) -> None:
    log, usage = SyncLog(database), Usage(database)
    clock = ManualClock(NOW + 50 * DAY)
    ports = replace(site.ports, clock=clock)
    senders: list[dict[str, Any]] = [
        {"bytes_from": {"beijing": 5, "frankfurt": 2}}, {"bytes_from": {}}, {"bytes_transferred": 0},
        {"rule": None, "replica": "game-cn@shanghai"}, {"account": "other"},
    ]  # fmt: skip
    entries = [
        _ended(10 * days + kind, days, **fields)
        for days in (0, 1, 20, 49)
        for kind, fields in enumerate(senders)
    ]
    await log.write(entries, [], NOW)
    ever, since = await usage.since(None), await usage.since(NOW + 15 * DAY)
    assert [one["bytes"] for one in ever["accounts"]] == [4 * 3 * 7, 4 * 7]
    trimming = Retention(database, ports=ports, settings=SETTINGS)
    for _ in range(2):
        await trimming.trim()
        assert len(await _tasks(log)) == 10
        assert await usage.since(None) == ever
        assert await usage.since(NOW + 15 * DAY) == since
    await clock.sleep(100 * 86400)
    await trimming.trim()
    assert await _tasks(log) == []
    assert await usage.since(None) == ever
    assert await usage.since(NOW + 15 * DAY) == since
    assert await usage.since(NOW + 60 * DAY) == {"accounts": [], "rules": [], "links": []}


async def test_more_entries_than_one_transaction_deletes_are_deleted(site: Site, database: Database) -> None:
    log = SyncLog(database)
    ports = replace(site.ports, clock=ManualClock(NOW + 50 * DAY))
    await log.write([completion(number) for number in range(1201)], [], NOW)
    await Retention(database, ports=ports, settings=SETTINGS).trim()
    assert await _tasks(log) == []
    (account,) = (await Usage(database).since(None))["accounts"]
    assert (account["bytes"], account["tasks"]) == (7 * 1201, 1201)


async def _run(
    executions: Executions, execution_id: str, days: int, *, whole: bool = True, rev: int = 5,
    operation: ExecutionOperation = "copy",
) -> None:  # fmt: skip
    """Stores an execution that lists nothing, and that `settle` ends on the same day."""
    start = NOW + days * DAY
    await executions.take(
        [
            ExecutionStart(
                id=f"start-{execution_id}", time=start, execution_id=execution_id, region=Region("beijing"),
                rule=PlaceName("release-to-eu"), source=PlaceName("game-cn"), destination=PlaceName("game-eu"),
                trigger="manual", rules_rev=rev, repository=None if whole else "game/**", operation=operation,
            ),
            ExecutionListed(
                id=f"listed-{execution_id}", time=start, execution_id=execution_id, region=Region("beijing"), total=0,
                error=None if whole else TaskError(code="unreachable", side=Side.SOURCE, message="no answer"),
            ),
        ]
    )  # fmt: skip
    await executions.settle({}, start)


async def test_old_executions_are_deleted_except_those_that_are_asked_for_again(
    site: Site, database: Database
) -> None:
    executions, log = Executions(database), SyncLog(database)
    clock = ManualClock(NOW + 100 * DAY)
    rule = site.state.rules()[0]
    backfill = backfill_id(rule.name, site.state.rev_of(rule.key))
    for number, name in enumerate((backfill, "replaced", "last")):
        await _run(executions, name, number)
    rev = site.state.rev_of(rule.key)
    await _run(executions, "baseline of the revision before", 0, rev=rev - 1, operation="baseline")
    await _run(executions, "baseline", 0, rev=rev, operation="baseline")
    await _run(executions, "part", 3, whole=False)
    await _run(executions, "recent", 90, whole=False)
    running = ExecutionListed(
        id="l", time=NOW, execution_id="running", region=Region("beijing"), total=2, error=None
    )
    await _run_without_end(executions, "running", running)
    await log.write([completion(1, execution_id="running")], [], NOW)
    ports = replace(site.ports, clock=clock)
    await ExecutionRetention(database, ports=ports, settings=SETTINGS).trim()
    await Retention(database, ports=ports, settings=SETTINGS).trim()
    kept = {one["id"] for one in (await executions.page({}, 100, None)).items}
    assert kept == {backfill, "last", "recent", "running"}
    assert await executions.status("baseline") is Status.SUCCEED
    assert await executions.status("baseline of the revision before") is None
    assert await _tasks(log) == [
        "task-0001"
    ]  # the end of a running execution is found by counting its entries


async def _run_without_end(executions: Executions, name: str, listed: ExecutionListed) -> None:
    start = ExecutionStart(
        id=f"start-{name}", time=NOW, execution_id=name, region=Region("beijing"), rule=PlaceName("release-to-eu"),
        source=PlaceName("game-cn"), destination=PlaceName("game-eu"), trigger="manual", rules_rev=5,
    )  # fmt: skip
    await executions.take([start, listed])
