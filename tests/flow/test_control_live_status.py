"""What control sees of agents, for as long as it runs."""

from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

from mesh.log.port import Append
from schemas import topics
from schemas.codec import encode
from schemas.completions import Heartbeat
from schemas.names import Region
from tests.support.control_site import MESH, control_site, until
from tests.support.shifted_clock import ShiftedClock


async def test_agents_that_died_long_ago_are_remembered_no_more(tmp_path: Path) -> None:
    """Each start of an agent is one of its own, and one that is killed says no last word."""
    region, clock = Region("frankfurt"), ShiftedClock()

    async with control_site(tmp_path, clock=clock) as site:

        async def beat(*agents: str, ago: timedelta) -> None:
            clock.ahead = -ago
            found = [
                Heartbeat(id=agent, time=clock.now(), agent=agent, region=region, rules_rev=1, running=0)
                for agent in agents
            ]
            await site.log.append([Append(topics.status(region), one.key, encode(one)) for one in found])

        await site.control.apply(MESH)
        await beat(*(f"killed-{number}" for number in range(30)), ago=timedelta(days=2))
        await beat("yesterday", ago=timedelta(hours=20))
        await beat("lives", ago=timedelta())

        async def is_seen() -> bool:
            _, answer = await site.call("GET", "/api/v1/agents")
            return [one["agent"] for one in answer["items"]] == ["lives"]

        await until(is_seen)
        live_status = site.control._live_status
        await live_status.delete_old()
        await until(lambda: set(live_status._regions.states[region].reports) == {"yesterday", "lives"})
        async with aclosing(site.log.follow(topics.status(region))) as batches:
            async for batch in batches:
                on_log = {record.key for record in batch.records if record.value is not None}
                break
        assert on_log == {"yesterday", "lives"}  # a control that starts later does not read them either
