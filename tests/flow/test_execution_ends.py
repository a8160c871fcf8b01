"""Executions that would not end, and failures that nothing would ever make good."""

import asyncio
from pathlib import Path

import pytest

from mesh.control.executions import commands
from mesh.registry.builtin.faults import Fail, Faults, Throttle
from schemas.names import Tag
from tests.flow.test_agent import client
from tests.flow.test_executions import APP, Mesh, _mesh, mesh
from tests.support.control_site import until

__all__ = ["mesh"]  # a fixture


async def _fails(mesh: Mesh, faults: Faults, tag: str) -> None:
    """A tag whose copy fails for good, until `faults` are cleared."""
    await mesh.push(tag)
    faults.fail = Fail(1000, "GET", "/v2/game/app/blobs/", 403)
    assert (await mesh.ended(await mesh.sync(tag=tag)))["failed"] == 1
    faults.fail = None


async def _is_deleted(mesh: Mesh, tag: str) -> None:
    async with client(mesh.source) as registry:
        await registry.delete_manifest(APP, Tag(tag))


async def test_what_failed_and_is_deleted_from_the_source_is_settled_by_trying_it_again(
    tmp_path: Path,
) -> None:
    faults = Faults()
    async with _mesh(tmp_path, faults) as mesh:
        mesh.producer()
        mesh.agent()
        await mesh.rule()
        await _fails(mesh, faults, "v1")
        await _is_deleted(mesh, "v1")
        assert await mesh.doctor() == ["1 task failed and no later task has succeeded"]
        _, answer = await mesh.control.call("POST", "/api/v1/retries", {})
        ended = await mesh.ended(answer["items"][0]["id"])
        assert (ended["status"], ended["total"], ended["skipped"]) == ("Succeed", 1, 1)
        (entry,) = await mesh.control.logs(execution=ended["id"])
        assert entry["error"]["code"] == "source_gone"
        assert await mesh.doctor() == []
        _, answer = await mesh.control.call("POST", "/api/v1/retries", {})
        assert answer["items"] == []


async def test_what_failed_is_settled_when_its_deletion_was_followed(tmp_path: Path) -> None:
    faults = Faults()
    async with _mesh(tmp_path, faults) as mesh:
        mesh.producer()
        mesh.agent()
        await mesh.rule(trigger={"type": "event_based"}, deletion=True)
        await _fails(mesh, faults, "v1")
        await _is_deleted(mesh, "v1")
        await mesh.announce_deletion("v1")

        async def is_settled() -> bool:
            return await mesh.doctor() == []

        await until(is_settled, timeout=20)
        (entry,) = [one for one in await mesh.control.logs() if one["operation"] == "delete"]
        assert (entry["status"], entry["error"]["code"]) == ("Skipped", "already_gone")


async def test_a_listing_that_a_throttled_source_holds_up_is_stopped_in_its_wait(mesh: Mesh) -> None:
    await mesh.rule()
    await mesh.push("v1")
    mesh.source.faults.throttle = Throttle(times=1000, retry_after=600)
    mesh.producer()
    execution_id = await mesh.sync()
    await until(lambda: mesh.source.faults.struck["throttle"] > 0)
    await mesh.control.call("POST", f"/api/v1/executions/{execution_id}/stop", {})
    ended = await mesh.ended(execution_id)  # long before the ten minutes are over
    assert (ended["status"], ended["total"]) == ("Stopped", 0)


async def test_a_rule_that_was_away_for_a_moment_leaves_no_execution_behind(mesh: Mesh) -> None:
    """Its agent read what was listed while there was no such rule, so nobody will ever end it."""
    await mesh.rule()
    await mesh.push("v1")
    mesh.producer()
    execution_id = await mesh.sync()

    async def is_listed() -> bool:
        return (await mesh.execution(execution_id))["total"] == 1

    await until(is_listed)
    assert (await mesh.control.call("DELETE", "/api/v1/rules/release"))[0] == 204
    await mesh.rule()
    ended = await mesh.ended(execution_id)
    assert (ended["status"], ended["error"]["code"]) == ("Stopped", "rule_gone")


async def test_a_rule_that_got_another_destination_leaves_no_execution_behind(mesh: Mesh) -> None:
    """The agents of both regions may have judged what was listed by the other rule: then it is nobody's."""
    await mesh.rule()
    await mesh.push("v1")
    mesh.producer()
    execution_id = await mesh.sync()
    third = {"name": "third", "account": "game", "region": "beijing", "url": "http://127.0.0.1:9"}
    status, answer = await mesh.control.call("POST", "/api/v1/apply", {"instances": [third]})
    assert status == 200, answer
    await mesh.rule(destination="third")
    ended = await mesh.ended(execution_id)
    assert (ended["status"], ended["error"]["code"]) == ("Stopped", "rule_gone")


async def test_an_end_is_counted_when_tasks_end_and_reported_to_who_waits_for_it(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_SETTLE_INTERVAL", 3600.0)  # only news wake it
    await mesh.rule()
    await mesh.push("v1")
    execution_id = await mesh.sync()
    path, wait = f"/api/v1/executions/{execution_id}", {"Prefer": "respond-async, wait=5"}
    asking = asyncio.create_task(mesh.control.call("GET", path, headers=wait))
    mesh.producer()

    async def is_listed() -> bool:
        return (await mesh.execution(execution_id))["total"] == 1

    await until(is_listed)
    assert not asking.done()
    mesh.agent()
    _, answer = await asking
    assert (answer["status"], answer["succeed"]) == ("Succeed", 1)


async def test_who_waits_is_answered_though_it_still_runs(mesh: Mesh) -> None:
    await mesh.rule()
    execution_id = await mesh.sync()  # which nobody lists
    path = f"{mesh.control.url}/api/v1/executions/{execution_id}"
    for asked, applied in (("wait=1", "wait=1"), ("wait=0", None), ("wait=soon", None)):
        async with mesh.control.http.get(path, headers={"Prefer": asked}) as answer:
            assert (await answer.json())["status"] == "InProgress"
            assert answer.headers.get("Preference-Applied") == applied


async def test_who_waits_for_what_is_not_there_is_reported_at_once(mesh: Mesh) -> None:
    status, _ = await mesh.control.call("GET", "/api/v1/executions/none", headers={"Prefer": "wait=5"})
    assert status == 404
