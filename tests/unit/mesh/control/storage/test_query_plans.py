"""No query that runs repeatedly scans a whole table, since tables grow with the number of tasks and tags."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from mesh.control.executions.retries import Retries
from mesh.control.executions.store import Executions
from mesh.control.images.merge import TagEntry, TagKey
from mesh.control.images.store import Images
from mesh.control.settings import ControlSettings
from mesh.control.storage import paging
from mesh.control.storage.database import Database
from mesh.control.storage.tables import FAILING_ATTEMPTS
from mesh.control.sync_log import log_query
from mesh.control.sync_log.store import SyncLog
from mesh.control.webhooks.delivery import FailingDeliveries
from mesh.control.webhooks.outbox import Outbox
from schemas.completions import Status
from schemas.events import Cause
from schemas.executions import ExecutionListed, ExecutionStart
from schemas.names import ObjectName, PlaceName, Region
from schemas.webhooks import Webhook
from tests.support.control_plans import explained
from tests.support.control_site import DIGEST, NOW, completion

OTHER = "sha256:" + "cd" * 32


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'control.db'}")
    yield opened
    await opened.close()


async def test_news_of_tags_are_looked_up_by_name(database: Database) -> None:
    images = Images(database)
    news = [
        (TagKey("cn", f"app-{n % 7}", f"v{n}"), TagEntry(DIGEST, NOW, Cause.ARRIVAL, n)) for n in range(50)
    ]
    about = {("game-eu", "game/server", DIGEST), ("cn", "app-1", DIGEST)}
    with explained(database) as plans:
        await images.take(news)
        await images.take_completions([completion(attached=[OTHER])])
        assert await images.count_referrers(about) == {("game-eu", "game/server", DIGEST): 1}
        await images.take_completions([completion(attached=[OTHER])])
        assert len(await images.entries([("cn", "app-1")], ["v1", "v8"])) == 2
    assert plans
    assert plans.scans("images", "image_referrers") == []


@pytest.mark.parametrize(
    "parameters",
    [
        {"rule": "nobody"}, {"replica": "cn@nowhere"}, {"digest": OTHER}, {"repository": "game/other"},
        {"repository": "game/other", "tag": "v1"}, {"status": "Failed"}, {"execution": "e"},
        {"rule": "nobody", "status": "Failed"}, {"rule": "nobody", "repository": "game/other"},
        {"execution": "e", "status": "Failed,Skipped"}, {"rule": "nobody", "tag": "v*"},
    ],
)  # fmt: skip
async def test_an_exact_filter_is_read_by_an_index_in_the_order_of_reading(
    database: Database, parameters: dict[str, str]
) -> None:
    sync_log = SyncLog(database)
    await sync_log.write([completion(1)], [], NOW)
    with explained(database) as plans:
        assert (await sync_log.read(log_query.parse(parameters, NOW))).items == []
    assert plans
    assert (plans.scans("sync_log"), plans.sorts()) == ([], [])


@pytest.mark.parametrize(
    "parameters",
    [
        {"region": "nowhere"}, {"tag": "nothing"}, {"repository": "zz*"}, {"status": "Skipped,Stopped"},
        {"rule": "release-to-eu", "region": "nowhere"}, {"status": "Succeed", "tag": "nothing"},
    ],
)  # fmt: skip
async def test_a_filter_without_an_index_is_searched_in_steps(
    database: Database, parameters: dict[str, str]
) -> None:
    """Counts the steps of SQLite's virtual machine, of which each row takes some."""
    sync_log, entries, ticks = (
        SyncLog(database, ControlSettings(log_search_rows=5, log_search_steps=2)),
        1000,
        0,
    )

    def tick() -> int:
        nonlocal ticks
        ticks += 1
        return 0

    for at in range(0, entries, 500):
        await sync_log.write([completion(number) for number in range(at, at + 500)], [], NOW)
    await database.run(lambda it: it.connection.dbapi_connection.set_progress_handler(tick, 10))
    page = await sync_log.read(log_query.parse(parameters, NOW))
    assert (page.items, page.next is None) == ([], False)
    assert ticks * 10 < entries


async def test_all_matches_of_many_steps_are_paged(database: Database) -> None:
    sync_log = SyncLog(database, ControlSettings(log_search_rows=1, log_search_steps=2))
    ends = [completion(n, destination_region="shanghai" if n % 37 == 0 else "frankfurt") for n in range(300)]
    await sync_log.write(ends, [], NOW)
    parameters, seen = {"region": "shanghai", "limit": "2"}, list[str]()
    while True:
        page = await sync_log.read(log_query.parse(parameters, NOW))
        seen += [row["task_id"] for row in page.items]
        if page.next is None:
            break
        parameters["cursor"] = paging.cursor_of(page.next) or ""
    assert seen == [f"task-{n:04}" for n in range(296, -1, -37)]


async def test_failures_are_counted_by_an_index(database: Database) -> None:
    sync_log, executions = SyncLog(database), Executions(database)
    await sync_log.write([completion(1, Status.FAILED), completion(2)], [], NOW)
    retries = Retries(database, None, None)  # only the database is asked
    with explained(database) as plans:
        assert await retries.open_failures() == {}
        assert await executions.get("e") is None
        assert not await executions.ran_whole("release-to-eu", NOW)
        await executions.settle({}, NOW)
        await Images(database).rebuilt_from("game/server", {DIGEST})
    assert plans.scans("sync_log", "executions") == []
    assert any("sync_log_by_image (repository=? AND tag=? AND end_time>?)" in line for line in plans)
    assert any("sync_log_by_digest" in line for line in plans)


async def test_an_execution_of_any_size_is_counted_from_an_index_alone(database: Database) -> None:
    sync_log, executions = SyncLog(database), Executions(database)
    start = ExecutionStart(
        id="start", time=NOW, execution_id="execution-1", region=Region("beijing"), rule=PlaceName("release-to-eu"),
        source=ObjectName("game-cn"), trigger="manual", rules_rev=1,
    )  # fmt: skip
    listed = ExecutionListed(
        id="listed", time=NOW, execution_id="execution-1", region=Region("beijing"), total=9
    )
    await executions.take([start, listed])
    refused, other = completion(4, Status.SKIPPED), completion(5, Status.SKIPPED)
    assert refused.error is not None
    refused = refused.model_copy(update={"error": refused.error.model_copy(update={"code": "no_grant"})})
    ends = [completion(1), completion(2), completion(3, Status.FAILED), refused, other]
    await sync_log.write([*ends, completion(6, execution_id="another")], [], NOW)
    with explained(database) as plans:
        found = await executions.get("execution-1")
    assert found is not None
    counted = ("succeed", "failed", "skipped", "stopped", "refused", "in_progress", "bytes_total")
    assert [found[name] for name in counted] == [2, 1, 2, 0, 1, 4, sum(end.bytes_total for end in ends)]
    reads = [line for line in plans if " sync_log " in line]
    assert reads
    assert all("USING COVERING INDEX sync_log_sums" in line for line in reads)


async def test_held_deletions_are_counted_by_an_index_of_their_own(database: Database) -> None:
    held = completion(2, Status.SKIPPED, operation="delete")
    assert held.error is not None
    held = held.model_copy(update={"error": held.error.model_copy(update={"code": "deletion_held"})})
    await SyncLog(database).write([completion(1, Status.SKIPPED), held], [], NOW)
    with explained(database) as plans:
        assert await Retries(database, None, None).held_deletions() == {"release-to-eu": 1}
    assert plans[0] == "SCAN sync_log USING INDEX sync_log_held"
    assert plans.scans("sync_log") == plans[:1]


async def test_delivery_status_is_found_by_an_index(database: Database) -> None:
    outbox = Outbox(database)
    hook = Webhook(name="ci", url="http://127.0.0.1:9/hook")
    await SyncLog(database).write([completion(number) for number in range(3)], [hook], NOW)
    first, second, _ = await outbox.claim("ci", 3, NOW)
    await outbox.postpone(first.id, NOW, "answered 500", NOW)
    await outbox.end(second.id, "delivered", NOW)
    with explained(database) as plans:
        found = (await outbox.delivery_status(["ci"]))["ci"]
    assert (found.waiting, found.delivered, found.failure and found.failure.reason) == (
        2,
        NOW,
        "answered 500",
    )
    assert (plans.scans("webhook_deliveries"), plans.sorts()) == ([], [])


async def test_the_backlog_of_a_dead_receiver_is_neither_scanned_nor_read(database: Database) -> None:
    outbox = Outbox(database)
    hooks = [Webhook(name=name, url="http://127.0.0.1:9/hook") for name in ("down", "up")]
    await SyncLog(database).write([completion(number) for number in range(3)], hooks, NOW)
    for found in await outbox.claim("down", 2, NOW):
        for attempt in range(FAILING_ATTEMPTS):
            await outbox.postpone(found.id, NOW, f"answered 50{attempt}", NOW + timedelta(seconds=attempt))
    with explained(database) as plans:
        assert await outbox.due_webhooks(NOW) == ["down", "up"]
        assert await outbox.due_webhooks(NOW - timedelta(seconds=1)) == []
        assert await outbox.failing() == {"down": FailingDeliveries(2, "answered 502")}
        await outbox.delete_old(ControlSettings(), NOW)
    assert (plans.scans("webhook_deliveries"), plans.sorts()) == ([], [])
    reads = [line for line in plans if " webhook_deliveries " in line and "(webhook=?)" not in line]
    assert reads
    assert all("COVERING INDEX" in line for line in reads)
    counts = [line for line in plans if "webhook_deliveries_failing" in line]
    assert any("COVERING INDEX" in line for line in counts)
    assert await outbox.close_all("down", NOW) == 3
    assert (await outbox.due_webhooks(NOW), await outbox.failing()) == (["up"], {})


async def test_tags_with_other_content_are_counted_by_an_index_of_their_own_until_they_are_repaired(
    database: Database,
) -> None:
    retries, log = Retries(database, None, None), SyncLog(database)
    left = completion(2, Status.SKIPPED, rule=None, replica="game-cn@shanghai", tag="v2")
    assert left.error is not None
    left = left.model_copy(update={"error": left.error.model_copy(update={"code": "other_content"})})
    await log.write([completion(1, Status.SKIPPED), left], [], NOW)
    with explained(database) as plans:
        assert await retries.foreign_content() == {"game-cn@shanghai": 1}
    assert plans[0] == "SCAN sync_log USING INDEX sync_log_others"
    assert plans.scans("sync_log") == plans[:1]
    again = left.model_copy(update={"task_id": "again", "end_time": left.end_time + timedelta(hours=1)})
    await log.write([again], [], NOW)
    assert await retries.foreign_content() == {"game-cn@shanghai": 1}
    repaired = again.model_copy(update={"task_id": "repaired", "status": Status.SUCCEED, "error": None})
    await log.write([repaired], [], NOW)
    assert await retries.foreign_content() == {}


async def test_a_tag_with_other_content_counts_until_a_run_over_the_replica_does_not_report_it(
    database: Database,
) -> None:
    """Its instance may have lost the tag, and then nothing is ever copied there."""
    retries, runs = Retries(database, None, None), Executions(database)
    left = completion(2, Status.SKIPPED, rule=None, replica="game-cn@shanghai", tag="v2")
    assert left.error is not None
    left = left.model_copy(update={"error": left.error.model_copy(update={"code": "other_content"})})
    await SyncLog(database).write([left], [], NOW)
    later = left.end_time + timedelta(hours=1)
    run = ExecutionStart(
        id="start", time=later, execution_id="run", region=Region("beijing"), rule=PlaceName("game-cn@shanghai"),
        source=PlaceName("game-cn"), destination=PlaceName("game-cn@shanghai"), trigger="reconcile",
        rules_rev=1,
    )  # fmt: skip
    await runs.take([run])
    assert await retries.foreign_content() == {"game-cn@shanghai": 1}
    listed = ExecutionListed(id="listed", time=later, execution_id="run", region=Region("beijing"), total=0)
    await runs.take([listed])
    assert await runs.settle({}, later)
    assert await retries.foreign_content() == {}
