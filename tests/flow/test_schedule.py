"""Scheduled rules: at their ticks, each once, also when control was down at the tick."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from mesh.control.executions.commands import Commands
from mesh.control.executions.schedule import Schedule
from mesh.control.executions.store import Executions
from mesh.control.storage.database import Database
from mesh.log.port import Append
from schemas import topics
from schemas.codec import encode
from schemas.completions import Side, TaskError
from schemas.executions import ExecutionListed
from schemas.rules import Rule
from schemas.state import StateRecord
from tests.support.control_plans import explained
from tests.support.control_site import MESH, NOW, Site, control_site
from tests.support.manual_clock import ManualClock


async def _schedule(
    site: Site, folder: Path, start: datetime, states: Mapping[str, str] | None = None
) -> tuple[Schedule, ManualClock, Executions, Database]:
    """As control makes it, on a clock that the test turns. Agents report `states`, by place."""
    clock, database = ManualClock(start), Database(f"sqlite:///{folder / 'schedule.db'}")
    executions = Executions(database)
    ports = replace(site.ports, clock=clock)
    place_states = {} if states is None else states  # a test may change it later
    schedule = Schedule(
        database, executions, Commands(executions, ports), lambda _: place_states, dict, ports
    )
    return schedule, clock, executions, database


async def _declare(site: Site, **fields: Any) -> None:
    rule = {**MESH["rules"][0], **fields}
    status, answer = await site.call("POST", "/api/v1/apply", {**MESH, "rules": [rule]})
    assert status == 200, answer


async def _triggers(executions: Executions) -> list[str]:
    return [one["trigger"] for one in (await executions.page({}, 100, None)).items]


async def test_a_tick_starts_one_execution_and_none_before_it(tmp_path: Path) -> None:
    async with control_site(tmp_path, running=False) as site:
        await _declare(site, trigger={"type": "scheduled", "cron": "0 9 * * *"})
        schedule, clock, executions, database = await _schedule(site, tmp_path, NOW)
        for _ in range(3):
            await schedule.start_due()
        assert await _triggers(executions) == []  # 08:00, and the tick of yesterday was before the rule
        await clock.sleep(3600)
        for _ in range(3):
            await schedule.start_due()
        assert await _triggers(executions) == ["scheduled"]
        await clock.sleep(24 * 3600)
        await schedule.start_due()
        assert await _triggers(executions) == ["scheduled"] * 2
        await database.close()


async def test_ticks_that_control_slept_through_run_once_when_it_is_back(tmp_path: Path) -> None:
    async with control_site(tmp_path, running=False) as site:
        await _declare(site, trigger={"type": "scheduled", "cron": "0 * * * *"})
        schedule, _, executions, database = await _schedule(site, tmp_path, NOW)
        await schedule.start_due()
        await database.close()
        schedule, _, executions, database = await _schedule(
            site, tmp_path, NOW + timedelta(hours=5, minutes=10)
        )
        for _ in range(3):
            await schedule.start_due()
        assert await _triggers(executions) == ["scheduled"]
        await database.close()


async def test_a_changed_schedule_is_reckoned_anew_and_a_disabled_rule_rests(tmp_path: Path) -> None:
    async with control_site(tmp_path, running=False) as site:
        await _declare(site, trigger={"type": "scheduled", "cron": "0 9 * * *"})
        schedule, clock, executions, database = await _schedule(site, tmp_path, NOW)
        await schedule.start_due()
        await _declare(site, trigger={"type": "scheduled", "cron": "0 12 * * *"})
        await clock.sleep(2 * 3600)
        await schedule.start_due()
        await _declare(site, trigger={"type": "scheduled", "cron": "0 12 * * *"}, enabled=False)
        await clock.sleep(3 * 3600)
        await schedule.start_due()
        assert await _triggers(executions) == []
        await database.close()


async def test_a_replica_is_looked_through_once_a_day_after_its_fill(tmp_path: Path) -> None:
    """What its registry did not notify is copied then at the latest."""
    replica = {"instance": "game-cn", "region": "beijing-2", "url": "http://127.0.0.1:9"}
    region = {"name": "beijing-2", "jurisdiction": "cn-mainland"}
    async with control_site(tmp_path, running=False) as site:
        status, answer = await site.call(
            "POST",
            "/api/v1/apply",
            {**MESH, "rules": [], "regions": [*MESH["regions"], region], "replicas": [replica]},
        )
        assert status == 200, answer
        schedule, clock, executions, database = await _schedule(site, tmp_path, NOW)
        for _ in range(24):
            await schedule.start_due()
            await clock.sleep(3600)
        assert await _triggers(executions) == ["backfill"]
        for _ in range(24 * 3):
            await schedule.start_due()
            await clock.sleep(3600)
        assert await _triggers(executions) == ["reconcile"] * 3 + ["backfill"]
        await database.close()


async def test_rules_that_are_not_due_cost_no_query(tmp_path: Path) -> None:
    """The thread of the database is shared by all of control, and looks are made every second."""
    rules = [
        {
            **MESH["rules"][0],
            "name": f"nightly-{number}",
            "trigger": {"type": "scheduled", "cron": "0 9 * * *"},
        }
        for number in range(20)
    ]
    async with control_site(tmp_path, running=False) as site:
        status, answer = await site.call("POST", "/api/v1/apply", {**MESH, "rules": rules})
        assert status == 200, answer
        schedule, clock, executions, database = await _schedule(site, tmp_path, NOW)
        await schedule.start_due()
        with explained(database) as plans:
            await schedule.start_due()
        assert plans == []
        await clock.sleep(3600)
        await schedule.start_due()
        assert await _triggers(executions) == ["scheduled"] * 20
        await database.close()


async def test_a_tick_that_another_control_ran_is_not_run_again(tmp_path: Path) -> None:
    async with control_site(tmp_path, running=False) as site:
        await _declare(site, trigger={"type": "scheduled", "cron": "0 * * * *"})
        first, clock, executions, database = await _schedule(site, tmp_path, NOW)
        second, other_clock, _, other_database = await _schedule(site, tmp_path, NOW)
        for schedule in (first, second):
            await schedule.start_due()
        for _ in range(3):
            await clock.sleep(3600)
            await other_clock.sleep(3600)
            await first.start_due()
            await second.start_due()
        assert await _triggers(executions) == ["scheduled"] * 3
        await database.close()
        await other_database.close()


async def _end_listings(executions: Executions, now: datetime, error: TaskError | None = None) -> None:
    for one in (await executions.page({}, 100, None)).items:
        listed = ExecutionListed(
            id=f"listed-{one['id']}",
            time=now,
            execution_id=one["id"],
            region=one["region"],
            total=0,
            error=error,
        )
        await executions.take([listed])


async def test_what_is_backfilled_is_compared_when_its_source_returns_and_when_control_starts(
    tmp_path: Path,
) -> None:
    """A registry that ends forgets the notifications that nobody took."""
    states: dict[str, str] = {}
    async with control_site(tmp_path, running=False) as site:
        await _declare(site, backfill=True)
        schedule, clock, executions, database = await _schedule(site, tmp_path, NOW, states)

        async def triggers_after(
            state: str | None, seconds: float, *, listed: bool = True, error: TaskError | None = None
        ) -> list[str]:
            states.clear()
            if state is not None:
                states["game-cn"] = state
            for _ in range(3):
                await schedule.start_due()
            await clock.sleep(seconds)
            if listed:
                await _end_listings(executions, clock.now(), error)
            return await _triggers(executions)

        compared = ["reconcile"]
        assert await triggers_after(None, 1) == ["backfill"]
        assert await triggers_after("Ready", 300) == ["backfill"]  # which was started since control was
        assert await triggers_after("Failed: connection refused", 1) == ["backfill"]
        assert await triggers_after(None, 1) == ["backfill"]  # no agent says anything
        assert await triggers_after("Ready", 10, listed=False) == [*compared, "backfill"]
        assert await triggers_after("Ready", 3600, listed=False) == [*compared, "backfill"]
        await triggers_after("Failed: connection refused", 1, listed=False)
        assert await triggers_after("Ready", 5) == [*compared, "backfill"]  # its listing has not ended
        compared *= 2
        assert await triggers_after("Ready", 5) == [*compared, "backfill"]
        await triggers_after("Failed: connection refused", 1)
        assert await triggers_after("Ready", 60) == [*compared, "backfill"]  # too soon after the last
        compared.append("reconcile")
        assert await triggers_after("Ready", 60) == [*compared, "backfill"]
        assert await triggers_after("Ready", 3600) == [*compared, "backfill"]
        await database.close()

        schedule, clock, executions, database = await _schedule(site, tmp_path, clock.now(), states)
        assert await triggers_after("Failed: connection refused", 1) == [*compared, "backfill"]
        compared.append("reconcile")
        cut_short = TaskError(code="unreachable", side=Side.SOURCE, message="connection refused")
        assert await triggers_after("Ready", 60, error=cut_short) == [*compared, "backfill"]
        compared.append("reconcile")
        assert await triggers_after("Ready", 60) == [*compared, "backfill"]  # the last one was cut short
        assert await triggers_after("Ready", 3600) == [*compared, "backfill"]
        await database.close()


async def test_a_rule_without_backfill_is_not_compared(tmp_path: Path) -> None:
    """What it did not copy may be older than the rule."""
    states = {"game-cn": "Failed: connection refused"}
    async with control_site(tmp_path, running=False) as site:
        await _declare(site)
        schedule, _, executions, database = await _schedule(site, tmp_path, NOW, states)
        await schedule.start_due()
        states["game-cn"] = "Ready"
        await schedule.start_due()
        assert await _triggers(executions) == []
        await database.close()


async def test_a_rule_that_was_away_runs_no_tick_of_that_time(tmp_path: Path) -> None:
    trigger = {"type": "scheduled", "cron": "0 * * * *"}
    async with control_site(tmp_path, running=False) as site:
        await _declare(site, trigger=trigger)
        schedule, clock, executions, database = await _schedule(site, tmp_path, NOW)
        await schedule.start_due()
        assert (await site.call("DELETE", "/api/v1/rules/release-to-eu"))[0] == 204
        await schedule.start_due()
        await clock.sleep(5 * 3600 + 600)
        await schedule.start_due()
        await _declare(site, trigger=trigger)
        for _ in range(2):
            await schedule.start_due()
        assert await _triggers(executions) == []
        await _declare(site)  # on events meanwhile, with the same cron afterwards
        await schedule.start_due()
        await clock.sleep(5 * 3600)
        await schedule.start_due()
        await _declare(site, trigger=trigger)
        for _ in range(2):
            await schedule.start_due()
        assert await _triggers(executions) == []
        await clock.sleep(3600)
        await schedule.start_due()
        assert await _triggers(executions) == ["scheduled"]
        await database.close()


async def test_a_rule_without_its_instance_holds_up_no_other(tmp_path: Path) -> None:
    """Two controls that write at once can each be right alone: one removes an instance, the other declares its rule."""
    async with control_site(tmp_path, running=False) as site:
        await _declare(site, name="b-whole", backfill=True)
        orphan = Rule(name="a-orphan", source="gone", destination="game-eu", backfill=True)
        record = StateRecord(id="orphan", time=NOW, noun="rule", value=orphan.model_dump(mode="json"))
        (rev,) = await site.log.append([Append(topics.STATE, orphan.key, encode(record))])
        await site.table.wait_for(rev)
        schedule, _, executions, database = await _schedule(site, tmp_path, NOW)
        for _ in range(2):
            await schedule.start_due()
        assert [one["rule"] for one in (await executions.page({}, 100, None)).items] == ["b-whole"]
        status, answer = await site.call("POST", "/api/v1/executions", {"rule": "a-orphan"})
        assert (status, answer["error"]["code"]) == (400, "invalid_input")
        await database.close()


async def test_rules_that_wait_for_others_baselines_cost_no_query(tmp_path: Path) -> None:
    """There may be thousands, and only a few are listed at once."""
    rules = [
        {**MESH["rules"][0], "name": f"rule-{number}", "destination_namespace": f"n{number}"}
        for number in range(30)
    ]
    async with control_site(tmp_path, running=False) as site:
        status, answer = await site.call("POST", "/api/v1/apply", {**MESH, "rules": rules})
        assert status == 200, answer
        schedule, clock, executions, database = await _schedule(site, tmp_path, NOW)
        await schedule.start_due()
        assert await executions.count_running(("baseline",), NOW - timedelta(hours=1)) == 4
        await clock.sleep(5)
        with explained(database) as plans:
            await schedule.start_due()
        assert len(plans) == 1  # how many run
        await database.close()
