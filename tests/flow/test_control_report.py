"""Completions from the log of every region into the sync log, through trouble and back."""

import asyncio
from datetime import timedelta
from pathlib import Path

from mesh.log.port import Append
from schemas import topics
from schemas.codec import decode, encode
from schemas.completions import Completion, Heartbeat, Progress, Status
from schemas.dead_letters import DeadLetter
from schemas.envelope import make_id
from schemas.names import Region
from tests.support.control_site import MESH, Site, completion, control_site, until
from tests.support.shifted_clock import ShiftedClock

FRANKFURT = Region("frankfurt")


def sample(site: Site, name: str, **labels: str) -> float:
    return site.metrics.registry.get_sample_value(f"regmesh_{name}", labels) or 0.0


async def has(site: Site, count: int) -> bool:
    return len(await site.logs(limit="1000")) == count


async def dead_letters(site: Site, region: Region) -> list[DeadLetter]:
    found: list[DeadLetter] = []
    topic = topics.dead_letters(region)
    ends = await site.log.end(topic)
    batches = site.log.follow(topic)
    async for batch in batches:
        found += [decode(record.value or b"", DeadLetter) for record in batch.records]
        if batch.positions == ends:
            break
    await batches.aclose()
    return found


async def test_ends_of_all_regions_become_entries(tmp_path: Path):
    async with control_site(tmp_path) as site:
        await site.control.apply(MESH)
        await site.report(
            completion(1), completion(2, Status.FAILED), completion(3, destination_region="beijing")
        )
        await until(lambda: has(site, 3))
        assert [entry["task_id"] for entry in await site.logs()] == ["task-0003", "task-0002", "task-0001"]
        assert sample(site, "completions_total", status="Succeed") == 2
        assert sample(site, "completions_total", status="Failed") == 1


async def test_a_region_that_is_declared_later_is_read_too(tmp_path: Path):
    async with control_site(tmp_path) as site:
        await site.control.apply(MESH)
        await site.report(completion(1))
        await until(lambda: has(site, 1))
        await site.control.apply({"regions": [{"name": "singapore", "jurisdiction": "global"}]})
        await site.report(completion(2, destination_region="singapore"))
        await until(lambda: has(site, 2))


async def test_what_cannot_be_read_is_buried_and_the_line_moves_on(tmp_path: Path):
    topic = topics.completions(FRANKFURT)
    huge = completion(8).model_copy(update={"bytes_total": 2**63})
    running = completion(9).model_copy(update={"status": Status.IN_PROGRESS})
    async with control_site(tmp_path) as site:
        await site.control.apply(MESH)
        bad = [b"{", None, encode(completion(7, destination_region="beijing")), encode(huge), encode(running)]
        await site.log.append([Append(topic, completion().key, raw) for raw in bad])
        await site.report(completion(1))
        await until(lambda: has(site, 1))
        assert sample(site, "dead_letters_total", topic=topic) == 5
        found = await dead_letters(site, FRANKFURT)
        assert [dead_letter.payload_bytes() for dead_letter in found] == [raw or b"" for raw in bad]
        assert [dead_letter.reason.partition(":")[0] for dead_letter in found] == [
            "not JSON", "not JSON", "a completion of region beijing on the topic of frankfurt",
            "bytes_total does not fit into 64 bits", "status InProgress does not end a task",
        ]  # fmt: skip
        assert found[0].position.startswith(f"{topic}[")


async def test_a_restart_goes_on_from_the_commit(tmp_path: Path):
    async with control_site(tmp_path) as site:
        await site.control.apply(MESH)
        await site.report(completion(1))
        await until(lambda: has(site, 1))
    async with control_site(tmp_path, running=False) as site:
        await site.report(completion(1), completion(1, Status.SKIPPED), completion(2))
    async with control_site(tmp_path) as site:
        await until(lambda: has(site, 2))
        assert {entry["status"] for entry in await site.logs()} == {"Succeed"}
        assert sample(site, "completions_total", status="Succeed") == 1


async def test_a_database_that_is_away_holds_up_and_loses_nothing(tmp_path: Path):
    place = tmp_path / "later"
    async with control_site(tmp_path, database=f"sqlite:///{place / 'control.db'}") as site:
        await site.control.apply(MESH)
        await site.report(completion(1))
        await asyncio.sleep(0.3)
        status, body = await site.call("GET", "/api/v1/logs")
        assert (status, body["error"]["code"]) == (503, "database_unavailable")
        place.mkdir()
        await until(lambda: has(site, 1))


async def test_a_database_without_space_is_seen_by_operators(tmp_path: Path):
    """It can still be read, so that nothing else would show it."""
    async with control_site(tmp_path) as site:
        await site.control.apply(MESH)
        await site.report(completion(1))
        await until(lambda: has(site, 1))
        database = site.control._database
        await database.run(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 1"))
        await site.report(*(completion(number) for number in range(2, 400)))

        async def is_full() -> bool:
            return sample(site, "database_failing") == 1

        await until(is_full)
        (note,) = site.control.notes()
        assert "disk is full" in note
        _, answer = await site.call("GET", "/api/v1/doctor")
        found = [one for one in answer["items"] if one["about"] == "control"]
        assert [(one["severity"], one["message"]) for one in found] == [("problem", note)]
        await database.run(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 1000000"))
        await until(lambda: has(site, 399))
        assert (site.control.notes(), sample(site, "database_failing")) == ([], 0)


async def test_more_than_one_read_takes(tmp_path: Path):
    async with control_site(tmp_path) as site:
        await site.control.apply(MESH)
        await site.report(*(completion(n, destination_repository=f"game/r{n % 40}") for n in range(1000)))
        await until(lambda: has(site, 1000))


def heartbeat(site: Site, agent: str, **places: str) -> Append:
    now = site.control._ports.clock.now()
    record = Heartbeat(
        id=make_id(agent), time=now, agent=agent, region=FRANKFURT, rules_rev=4, running=1, places=places
    )
    return Append(topics.status(FRANKFURT), agent, encode(record))


def progress(number: int, agent: str) -> Append:
    reported = completion(number).model_dump(
        exclude=set(Completion.model_fields) - set(Progress.model_fields)
    )
    record = Progress(**reported | {"status": Status.IN_PROGRESS, "agent": agent, "id": f"p{number}"})
    return Append(topics.status(FRANKFURT), record.key, encode(record))


async def agents(site: Site) -> list[str]:
    return [item["agent"] for item in (await site.call("GET", "/api/v1/agents"))[1]["items"]]


async def test_what_runs_is_reported_while_its_agent_lives(tmp_path: Path):
    async with control_site(tmp_path) as site:
        await site.control.apply(MESH)
        alive = heartbeat(site, "agent-1", **{"game-eu": "Ready", "game-cn": "Failed: no answer"})
        await site.log.append([alive, progress(1, "agent-1"), progress(2, "agent-1"), progress(3, "gone")])
        await until(lambda: _running(site, ["task-0001", "task-0002"]))
        assert await agents(site) == ["agent-1"]
        _, eu = await site.call("GET", "/api/v1/instances/game-eu")
        _, cn = await site.call("GET", "/api/v1/instances/game-cn")
        assert (eu["state"], cn["state"]) == ("Ready", "Failed: no answer")
        (entry,) = await site.logs(status="InProgress", limit="1", repository="game/*")
        assert (entry["status"], entry["end_time"], entry["lag_ms"]) == ("InProgress", None, None)
        assert entry["bytes_transferred"] == 7
        await site.log.append([Append(topics.status(FRANKFURT), "task-0001", None)])
        await until(lambda: _running(site, ["task-0002"]))
        await site.log.append([Append(topics.status(FRANKFURT), "agent-1", None)])
        await until(lambda: _running(site, []))
        assert await agents(site) == []


async def test_an_agent_that_fell_silent_is_not_reported(tmp_path: Path):
    clock = ShiftedClock()
    async with control_site(tmp_path, clock=clock) as site:
        await site.control.apply(MESH)
        clock.ahead = -timedelta(minutes=1)
        await site.log.append(
            [heartbeat(site, "old"), Append(topics.status(FRANKFURT), "bad", b"{"), progress(1, "old")]
        )
        clock.ahead = timedelta()
        await site.log.append([heartbeat(site, "new")])
        await site.log.append([progress(2, "new")])
        await until(lambda: _running(site, ["task-0002"]))
        assert await agents(site) == ["new"]


async def _running(site: Site, tasks: list[str]) -> bool:
    found = await site.logs(status="InProgress")
    return sorted(entry["task_id"] for entry in found) == tasks
