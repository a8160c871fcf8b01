"""The fence on a real log and table: what was declared before the call is in the stamp, within half a second."""

import asyncio

import pytest

from producer.fence import LONGEST_WAIT, stamp
from schemas.rules import Rule
from tests.support.intake_site import GAME_CN, Site, intake_site


@pytest.fixture
async def site(tmp_path):
    async with intake_site(tmp_path) as site:
        yield site


def rule(number: int) -> Rule:
    return Rule(name=f"rule-{number}", source="game-cn", destination="game-eu")


async def test_nothing_declared_is_a_revision_too(site: Site):
    assert await stamp(site.table) == (-1, True)


async def test_what_was_declared_before_is_in_the_stamp(site: Site):
    for number in range(100):
        rev = await site.declare(rule(number))
        stamped = await stamp(site.table)
        assert stamped.fresh
        assert stamped.rules_rev >= rev


async def test_many_at_once(site: Site):
    async def declare_and_stamp(number: int) -> bool:
        rev = await site.declare(rule(number))
        return (await stamp(site.table)).rules_rev >= rev

    assert all(await asyncio.gather(*(declare_and_stamp(number) for number in range(100))))


async def test_a_log_that_is_away_gives_what_was_known(site: Site):
    rev = await site.declare(GAME_CN)
    await stamp(site.table)
    await site.log.close()
    assert await stamp(site.table) == (rev, False)


async def test_a_table_that_does_not_move_gives_what_was_known_in_time(site: Site):
    rev = await site.declare(GAME_CN)
    await stamp(site.table)
    site.following.cancel()
    began = asyncio.get_running_loop().time()
    assert set(await asyncio.gather(*(stamp(site.table) for _ in range(20)))) == {(rev, False)}
    assert asyncio.get_running_loop().time() - began < LONGEST_WAIT + 0.3


async def test_a_request_that_goes_away_takes_no_other_with_it(site: Site):
    gone, stays = asyncio.create_task(stamp(site.table)), asyncio.create_task(stamp(site.table))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays).fresh
    with pytest.raises(asyncio.CancelledError):
        await gone
