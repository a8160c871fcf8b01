"""Speed limits of rules and links, over all concurrent transfers of an agent."""

import asyncio
import os
from pathlib import Path

from schemas.completions import Status
from schemas.names import Repository
from tests.flow.test_agent import Site, open_site
from tests.support import images

RATE = 400_000  # bytes a second
SIZE = 200_000  # of a layer
FILTERS = [{"type": "name", "value": "game/**"}]


def waited(site: Site, limit: str) -> float:
    sample = "regmesh_speed_wait_seconds_total"
    return site.metrics.registry.get_sample_value(sample, {"limit": limit}) or 0.0


async def test_a_rules_limit_holds_for_all_its_concurrent_transfers_and_for_no_other_rule(
    tmp_path: Path,
) -> None:
    async with open_site(tmp_path) as site:
        rev = await site.declare(
            "rule", "release", source="cn", destination="eu", filters=FILTERS, speed=RATE
        )
        free = [{"type": "name", "value": "free/**"}]
        rev = await site.declare("rule", "free", source="cn", destination="eu", filters=free)
        limited = images.image(layers=[os.urandom(SIZE) for _ in range(4)])
        unlimited = images.image(layers=[os.urandom(SIZE) for _ in range(4)])
        await site.push("v1", limited, notify=False)
        await site.push("v1", unlimited, repository=Repository("free/app"), notify=False)
        await site.event("v1", limited.digest, rules_rev=rev)
        await site.event("v1", unlimited.digest, repository=Repository("free/app"), rules_rev=rev)
        ends = {end.rule: end for end in await site.ends(2)}
        took = {rule: (end.end_time - end.start_time).total_seconds() for rule, end in ends.items()}
        assert {end.status for end in ends.values()} == {Status.SUCCEED}
        # It cannot have been quicker than the limit lets it be; and the other was not limited.
        assert took["release"] >= 4 * SIZE / RATE - 0.5
        assert waited(site, "rule/release") > 0
        assert waited(site, "rule/free") == 0


async def test_a_links_limit_holds_for_all_that_takes_it(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        links = [{"to": "frankfurt", "speed": RATE}]
        rev = await site.declare("region", "beijing", jurisdiction="cn", links=links)
        images_pushed = [images.image(layers=[os.urandom(SIZE), os.urandom(SIZE)]) for _ in range(2)]
        for number, image in enumerate(images_pushed):
            repository = Repository(f"game/app{number}")
            await site.push("v1", image, repository=repository, notify=False)
            await site.event("v1", image.digest, repository=repository, rules_rev=rev)
        ends = await site.ends(2)
        whole = max(end.end_time for end in ends) - min(end.start_time for end in ends)
        assert {end.status for end in ends} == {Status.SUCCEED}
        assert whole.total_seconds() >= 4 * SIZE / RATE - 0.5


async def test_a_limit_that_is_lifted_is_lifted_for_what_is_under_way(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        slow = {"source": "cn", "destination": "eu", "filters": FILTERS}
        rev = await site.declare("rule", "release", **slow, speed=1024)
        image = images.image(layers=[os.urandom(SIZE)])  # three minutes at that speed
        await site.push("v1", image, notify=False)
        await site.event("v1", image.digest, rules_rev=rev)
        while not site.source.traffic.requests["GET", "blob"]:
            await asyncio.sleep(0.01)
        await site.declare("rule", "release", **slow)
        (end,) = await site.ends(1)
        assert end.status is Status.SUCCEED
