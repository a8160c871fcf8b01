"""What waits in `mesh.<region>.retry`, as control shows it: in the sync log's shape, and what may be done with it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mesh.log.port import Append
from mesh.node.cli import app
from schemas import topics
from schemas.codec import decode, encode
from schemas.completions import Completion, Side, Status, TaskError
from schemas.events import Action, Event
from schemas.names import Digest, PlaceName, Region, Repository, Tag
from schemas.parked import STILL_QUEUED, STILL_RUNNING, Parked
from tests.flow.test_control_report import FRANKFURT, heartbeat, progress
from tests.support.control_site import DIGEST, MESH, NOW, Site, completion, control_site, until

FAILED, RUNS, WAITS, AGAIN = "task-0001", "task-0002", "task-0003", "task-0004"


def parked(number: int, code: str, **changes: Any) -> Append:
    event = Event(
        id=f"event-{number}", time=NOW, action=Action.MANIFEST_PUSH, place=PlaceName("game-cn"),
        region=Region("beijing"), repository=Repository("game/server"), tag=Tag("1.0-global"), digest=Digest(DIGEST),
        occurred_at=NOW, rules_rev=5,
    )  # fmt: skip
    reported = completion(number).model_dump(exclude=set(Completion.model_fields) - set(Parked.model_fields))
    reported |= {
        "status": Status.PENDING, "start_time": NOW + timedelta(seconds=number), "event": event, "agent": "agent-1",
        "error": TaskError(code=code, side=Side.DESTINATION, message=f"why {number}"), "rounds": 1,
        "first_parked": NOW, "not_before": NOW + timedelta(hours=1),
    }  # fmt: skip
    record = Parked(**reported | changes)
    return Append(topics.retry(FRANKFURT), record.key, encode(record))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Four parked tasks: one failed, one runs, one waits for its turn, one failed and is being tried again."""
    async with control_site(tmp_path) as opened:
        await opened.control.apply(MESH)
        records = [parked(1, "server_fault"), parked(2, STILL_RUNNING), parked(3, STILL_QUEUED)]
        records += [parked(4, "throttled", repository="game/again")]
        records += [heartbeat(opened, "agent-1"), progress(2, "agent-1"), progress(4, "agent-1")]
        await opened.log.append(records)

        async def all_reported() -> bool:
            _, reported = await opened.call("GET", "/api/v1/parked")
            return len(reported["items"]) == 4 and len(await opened.logs(status="InProgress")) == 2

        await until(all_reported)
        yield opened


async def test_pending_is_what_is_parked_and_does_not_run_now(site: Site) -> None:
    waiting, failed = await site.logs(status="Pending")
    assert (waiting["task_id"], waiting["error"]["code"]) == (WAITS, STILL_QUEUED)
    assert failed["task_id"] == FAILED
    assert failed["error"] == {"code": "server_fault", "side": "destination", "message": "why 1"}
    assert (failed["status"], failed["end_time"], failed["lag_ms"]) == ("Pending", None, None)
    assert failed["destination"] == "game-eu/game/server:1.0-global"
    ended = completion(9)
    await site.report(ended)
    await until(lambda: _has(site, ended.task_id))
    assert {one["status"] for one in await site.logs()} == {"Succeed"}


async def test_pending_is_filtered_and_paged_like_the_rest(site: Site) -> None:
    for filters, found in [
        ({"repository": "game/again"}, []),
        ({"repository": "game/*", "rule": "release-to-eu"}, [WAITS, FAILED]),
        ({"since": "2026-03-01T08:00:02Z"}, [WAITS]),
        ({"region": "beijing", "tag": "1.0-*"}, [WAITS, FAILED]),
        ({"execution": "another"}, []),
    ]:
        assert [one["task_id"] for one in await site.logs(status="Pending", **filters)] == found, filters
    _, first = await site.call("GET", "/api/v1/logs?status=Pending&limit=1")
    _, second = await site.call("GET", f"/api/v1/logs?status=Pending&limit=1&cursor={first['next']}")
    assert [one["task_id"] for one in first["items"] + second["items"]] == [WAITS, FAILED]
    assert second["next"] is None


async def test_what_did_not_end_is_asked_for_together_and_never_with_what_did(site: Site) -> None:
    both = await site.logs(status="Pending,InProgress")
    assert {one["task_id"]: one["status"] for one in both} == {
        FAILED: "Pending", WAITS: "Pending", RUNS: "InProgress", AGAIN: "InProgress",
    }  # fmt: skip
    for mixed in ("Pending,Failed", "InProgress,Pending,Succeed"):
        status, reported = await site.call("GET", f"/api/v1/logs?status={mixed}")
        assert status == 400
        assert reported["error"]["message"].startswith("status: ")


async def test_the_commands_show_it(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    async def regmesh(*arguments: str) -> str:
        assert await asyncio.to_thread(app.run, [*arguments, "--server", site.url]) == 0
        return capsys.readouterr().out

    pending = await regmesh("logs", "--status", "Pending")
    assert "server_fault (destination): why 1" in pending
    assert "why 2" not in pending
    listed = (await regmesh("get", "parked")).splitlines()
    (failed,) = [line for line in listed if FAILED in line]
    (runs,) = [line for line in listed if RUNS in line]
    assert "2026-03-01 09:00:00" in failed
    assert "2026-03-01" not in runs
    assert "why 2" in runs


async def test_what_its_agent_has_in_hand_is_neither_tried_now_nor_closed(site: Site) -> None:
    before = await site.log.end(topics.retry(FRANKFURT))
    status, reported = await site.call("POST", f"/api/v1/tasks/{RUNS}/close", {})
    assert (status, reported["error"]["code"]) == (409, "still_running")
    status, reported = await site.call("POST", f"/api/v1/tasks/{RUNS}/retry", {})
    assert (status, reported["id"]) == (202, RUNS)
    assert await site.log.end(topics.retry(FRANKFURT)) == before
    status, reported = await site.call("POST", "/api/v1/retries", {"rule": "release-to-eu"})
    assert (status, reported["parked"]) == (201, 2)
    records = [decode(value, Parked) for value in await _values(site, topics.retry(FRANKFURT))]
    assert [one.task_id for one in records if one.not_before > NOW + timedelta(hours=1)] == [FAILED, AGAIN]


async def _values(site: Site, topic: str) -> list[bytes]:
    async with aclosing(site.log.follow(topic)) as batches:
        return [record.value or b"" for record in (await anext(batches)).records]


async def _has(site: Site, task_id: str) -> bool:
    return task_id in {one["task_id"] for one in await site.logs()}
