"""What control sees of agents, for as long as it runs."""

from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

from mesh.clock import SystemClock
from mesh.log.port import Append
from schemas import topics
from schemas.codec import encode
from schemas.completions import Heartbeat
from schemas.names import Region
from tests.support.control_site import MESH, control_site, until


async def test_agents_that_died_long_ago_are_remembered_no_more(tmp_path: Path) -> None:
    """Each start of an agent is one of its own, and one that is killed says no last word."""
    now = SystemClock().now()
    region = Region("frankfurt")

    def beat(agent: str, ago: timedelta) -> Append:
        found = Heartbeat(id=agent, time=now - ago, agent=agent, region=region, rules_rev=1, running=0)
        return Append(topics.status(region), found.key, encode(found))

    async with control_site(tmp_path) as site:
        await site.control.apply(MESH)
        died = [beat(f"killed-{number}", timedelta(days=2)) for number in range(30)]
        await site.log.append([*died, beat("yesterday", timedelta(hours=20)), beat("lives", timedelta())])

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
