"""The sync log on a real database: one entry per task, with repeats and in any order."""

import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from mesh.control.settings import ControlSettings
from mesh.control.storage import paging
from mesh.control.storage.database import Database
from mesh.control.storage.paging import Position
from mesh.control.sync_log import log_query
from mesh.control.sync_log.entry import entry_of
from mesh.control.sync_log.store import SyncLog
from mesh.control.webhooks.outbox import Outbox
from mesh.errors import DatabaseUnavailable, InvalidInput
from schemas.completions import Status
from schemas.webhooks import Webhook
from tests.support.control_site import NOW, completion

FIELDS = (
    "task_id", "execution_id", "rule", "replica", "trigger", "operation", "resource_type", "source", "destination",
    "source_region", "destination_region", "repository", "tag", "digest", "status", "start_time", "end_time",
    "bytes_total", "bytes_transferred", "bytes_skipped", "blobs_mounted", "attempts", "lag_ms", "rules_rev",
    "rebuilt_from", "bytes_from", "origin", "hops", "error",
)  # fmt: skip
HOOK = Webhook(
    name="ci", url="http://127.0.0.1:9/", event_types=("replication.succeeded", "replication.failed")
)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'control.db'}")
    yield opened
    await opened.close()


@pytest.fixture
def sync_log(database: Database) -> SyncLog:
    return SyncLog(database)


async def entries(sync_log: SyncLog, **parameters: str) -> list[dict[str, object]]:
    page = await sync_log.read(log_query.parse(parameters, NOW + timedelta(hours=1)))
    return [entry_of(row) for row in page.items]


async def outbox(database: Database) -> list[str]:
    taken = await Outbox(database).claim("ci", 100, NOW + timedelta(days=1))
    return [delivery.body for delivery in taken]


async def test_an_entry_has_the_fields_of_the_contract(sync_log: SyncLog):
    await sync_log.write([completion(status=Status.FAILED)], [], NOW)
    (entry,) = await entries(sync_log)
    assert tuple(entry) == FIELDS
    assert entry["source"] == "game-cn/game/server:1.0-global"
    assert entry["destination"] == "game-eu/game/server:1.0-global"
    assert entry["end_time"] == "2026-03-01T08:00:01Z"
    assert entry["error"] == {"code": "unreachable", "side": "source", "message": "no answer"}
    assert (entry["rule"], entry["replica"], entry["status"]) == ("release-to-eu", None, "Failed")


async def test_a_repeat_changes_nothing_and_is_not_delivered(sync_log: SyncLog, database: Database):
    assert len(await sync_log.write([completion(), completion()], [HOOK], NOW)) == 1
    before = await entries(sync_log)
    assert await sync_log.write([completion()], [HOOK], NOW) == []
    assert await entries(sync_log) == before
    assert len(await outbox(database)) == 1


async def test_a_success_stays_a_success(sync_log: SyncLog, database: Database):
    await sync_log.write([completion(status=Status.SUCCEED)], [HOOK], NOW)
    later = NOW + timedelta(minutes=1)
    for status in (Status.SKIPPED, Status.FAILED, Status.STOPPED):
        assert await sync_log.write([completion(status=status, end_time=later)], [HOOK], NOW) == []
    (entry,) = await entries(sync_log)
    assert (entry["status"], entry["end_time"], entry["error"]) == ("Succeed", "2026-03-01T08:00:01Z", None)
    assert len(await outbox(database)) == 1


async def test_a_failure_is_replaced_by_any_later_end_and_both_are_delivered(
    sync_log: SyncLog, database: Database
):
    await sync_log.write([completion(status=Status.FAILED)], [HOOK], NOW)
    later = completion(status=Status.FAILED, end_time=NOW + timedelta(seconds=9), attempts=4)
    assert await sync_log.write([later], [HOOK], NOW) == []  # failed as before: no news
    assert [entry["attempts"] for entry in await entries(sync_log)] == [4]
    assert len(await sync_log.write([completion(end_time=NOW + timedelta(seconds=10))], [HOOK], NOW)) == 1
    assert [entry["status"] for entry in await entries(sync_log)] == ["Succeed"]
    bodies = await outbox(database)
    assert sorted("replication.failed" in body for body in bodies) == [False, True]


async def test_any_order_and_any_batches_end_in_the_same_entry(tmp_path: Path):
    ends = [
        completion(status=Status.FAILED),
        completion(status=Status.FAILED, end_time=NOW + timedelta(seconds=5)),
        completion(status=Status.SKIPPED, end_time=NOW + timedelta(seconds=6)),
        completion(status=Status.SUCCEED, end_time=NOW + timedelta(seconds=2)),
    ]
    found = set()
    for number, order in enumerate(itertools.permutations(ends)):
        database = Database(f"sqlite:///{tmp_path / f'{number}.db'}")
        sync_log = SyncLog(database)
        cut = number % 4
        await sync_log.write(order[:cut], [], NOW)
        await sync_log.write(order[cut:], [], NOW)
        found.add(str(await entries(sync_log)))
        await database.close()
    assert len(found) == 1
    assert "'status': 'Succeed'" in found.pop()


async def test_pages_show_each_entry_once_while_new_ones_are_written(sync_log: SyncLog):
    await sync_log.write([completion(number) for number in range(0, 50, 2)], [], NOW)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for fresh in range(100, 200):
        page = await sync_log.read(log_query.parse({"limit": "4", **cursor}, NOW))
        seen += [row["task_id"] for row in page.items]
        await sync_log.write([completion(fresh)], [], NOW)
        if page.next is None:
            break
        cursor = {"cursor": paging.cursor_of(page.next) or ""}
    assert seen == [f"task-{number:04}" for number in range(48, -1, -2)]


async def test_entries_of_the_same_moment_are_paged_too(sync_log: SyncLog):
    await sync_log.write([completion(n, end_time=NOW) for n in range(7)], [], NOW)
    seen: list[str] = []
    after: Position | None = None
    while True:
        page = await sync_log.read(
            log_query.parse({"limit": "2"} | ({"cursor": paging.cursor_of(after)} if after else {}), NOW)
        )
        seen += [row["task_id"] for row in page.items]
        if (after := page.next) is None:
            break
    assert seen == [f"task-{n:04}" for n in range(6, -1, -1)]


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({}, {1, 2, 3, 4}),
        ({"rule": "release-to-eu"}, {1, 2, 3, 4}),
        ({"rule": "other"}, set()),
        ({"replica": "game-cn@shanghai"}, set()),
        ({"repository": "game/server"}, {1}),
        ({"repository": "game/*"}, {1, 2}),
        ({"repository": "game/**"}, {1, 2, 3}),
        ({"repository": "**/server"}, {1, 3}),
        ({"repository": "{game,tools}/[c-s]*"}, {1, 2, 4}),
        ({"repository": "game/serv_r"}, set()),
        ({"repository": "game/serv?r"}, {1}),
        ({"repository": r"re:.*/c(lient|cache)"}, {2, 4}),
        ({"tag": "v*"}, {2}),
        ({"digest": "sha256:" + "cd" * 32}, {3}),
        ({"status": "Failed"}, {2}),
        ({"status": "Failed,Skipped"}, {2, 3}),
        ({"status": "Pending"}, set()),
        ({"region": "shanghai"}, {4}),
        ({"region": "frankfurt"}, {1, 2, 3}),
        ({"execution": "execution-2"}, {4}),
        ({"since": "2026-03-01T08:00:03Z"}, {3, 4}),
        ({"since": "2026-03-01T09:00:03+01:00"}, {3, 4}),
        ({"since": "59m58s"}, {2, 3, 4}),
        ({"since": "2h"}, {1, 2, 3, 4}),
        ({"repository": "game/**", "status": "Failed,Succeed", "limit": "1"}, {2}),
    ],
)
async def test_filters(sync_log: SyncLog, parameters: dict[str, str], found: set[int]):
    ends = [
        completion(1),
        completion(2, Status.FAILED, repository="game/client", tag="v2"),
        completion(3, Status.SKIPPED, repository="game/eu/server", digest="sha256:" + "cd" * 32),
        completion(4, repository="tools/ccache", destination_region="shanghai", execution_id="execution-2"),
    ]
    await sync_log.write(ends, [], NOW)
    assert {int(str(entry["task_id"])[-1]) for entry in await entries(sync_log, **parameters)} == found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rule", "No Rule"), ("replica", "@"), ("repository", "a{b"), ("repository", ""), ("tag", "re:("),
        ("digest", "sha256:12"), ("status", "Succeeded"), ("status", ""), ("status", "InProgress,Failed"),
        ("region", "Beijing"), ("execution", "a b"), ("since", "yesterday"), ("since", "2026-03-01T08:00:00"),
        ("since", "99999999w"), ("cursor", "abc"), ("cursor", "WzEsMl0"), ("limit", "0"), ("limit", "1001"),
        ("limit", "x"), ("repo", "game"),
    ],
)  # fmt: skip
def test_a_bad_parameter_is_named(name: str, value: str):
    with pytest.raises(InvalidInput, match=f"^{name}: "):
        log_query.parse({name: value}, NOW)


async def test_a_rare_pattern_is_searched_in_steps(database: Database):
    sync_log = SyncLog(database, ControlSettings(log_search_rows=10, log_search_steps=2))
    await sync_log.write([completion(n, tag="rare" if n == 3 else "common") for n in range(60)], [], NOW)
    parameters, pages = {"tag": "re:rare"}, 0
    while True:
        page = await sync_log.read(log_query.parse(parameters, NOW))
        pages += 1
        if page.items or page.next is None:
            break
        parameters = {"tag": "re:rare", "cursor": paging.cursor_of(page.next) or ""}
    assert [row["task_id"] for row in page.items] == ["task-0003"]
    assert pages == 3


async def test_an_unavailable_database_raises_and_recovers(tmp_path: Path):
    database = Database(f"sqlite:///{tmp_path / 'later' / 'control.db'}")
    sync_log = SyncLog(database)
    with pytest.raises(DatabaseUnavailable, match="unable to open"):
        await sync_log.write([completion()], [], NOW)
    (tmp_path / "later").mkdir()
    assert len(await sync_log.write([completion()], [], NOW)) == 1
    await database.close()
    with pytest.raises(DatabaseUnavailable, match="closed"):
        await sync_log.write([completion()], [], NOW)


@pytest.mark.parametrize("url", ["control.db", "mysql://localhost/x", "nonsense://x", "sqlite+x:///a"])
def test_only_two_kinds_of_database(url: str):
    with pytest.raises(InvalidInput, match="must be sqlite:///FILE or postgresql://"):
        Database(url)
