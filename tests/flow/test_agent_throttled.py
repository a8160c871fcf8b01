"""A registry that throttles holds up what goes to it or comes from it, and nothing else."""

from pathlib import Path

from mesh.registry.builtin.faults import Faults, Throttle
from schemas.names import Repository
from tests.support import images
from tests.support.mesh_site import mesh_site, until

MANY = 30  # more than tasks run for a destination at once


async def test_a_source_that_throttles_holds_up_no_other_source(tmp_path: Path) -> None:
    async with mesh_site(tmp_path) as site:
        for place in ("cn", "shop", "eu"):
            await site.registry(place, faults=Faults())
        await site.apply(
            {
                "regions": [{"name": "beijing", "jurisdiction": "cn"}],
                "instances": [
                    {"name": name, "account": "game", "region": "beijing", "url": site.registries[name].url}
                    for name in ("cn", "shop", "eu")
                ],
                "rules": [
                    {"name": f"of-{name}", "source": name, "destination": "eu", "destination_namespace": name}
                    for name in ("cn", "shop")
                ],
            }
        )
        for number in range(MANY):
            await site.push(
                "cn", "v1", images.image(layers=[b"%d" % number]), Repository(f"game/app-{number}")
            )
        site.registries["cn"].faults.throttle = Throttle(times=10_000, retry_after=600)
        agent = await site.start_agent("beijing")

        async def wait() -> bool:
            return len(agent._runner.running) == MANY

        await until(wait)
        await site.push("shop", "v1", images.image(layers=[b"other"]))
        (entry,) = await until(lambda: site.logs(status="Succeed"))
        assert (entry["rule"], await site.digest("eu", "v1", Repository("shop/app"))) == (
            "of-shop",
            entry["digest"],
        )
        struck = site.registries["cn"].faults.struck["throttle"]
        assert 0 < struck < MANY  # most of them never asked
