"""A registry whose answers nobody expects stops its own tasks at most, and never the agent."""

from pathlib import Path

from mesh.registry.builtin.faults import Faults, Throttle
from tests.support import images
from tests.support.mesh_site import mesh_site, until


async def test_a_registry_that_asks_to_wait_beyond_all_years_is_asked_again(tmp_path: Path) -> None:
    async with mesh_site(tmp_path) as site:
        for place in ("cn", "eu"):
            await site.registry(place, faults=Faults())
        await site.apply(
            {
                "regions": [{"name": "beijing", "jurisdiction": "cn"}],
                "instances": [
                    {"name": name, "account": "game", "region": "beijing", "url": site.registries[name].url}
                    for name in ("cn", "eu")
                ],
                "rules": [{"name": "all", "source": "cn", "destination": "eu"}],
            }
        )
        await site.push("cn", "v1", images.image(layers=[b"one"]))
        beyond = "Mon, 01 Jan 99999999999 00:00:00 GMT"
        site.registries["eu"].faults.throttle = Throttle(2, beyond)  # type: ignore[arg-type]  # what no type allows
        await site.start_agent("beijing")
        await until(lambda: site.logs(status="Succeed"))
        assert site.registries["eu"].faults.struck["throttle"] == 2
        _, running = site.agents["beijing"]
        assert not running.done()
