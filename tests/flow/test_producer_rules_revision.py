"""The rules revision on a real log and table: it covers what was declared before the call, within half a second."""

import asyncio

import pytest

from mesh.log.table import Table
from producer.rules_revision import RulesRevision, read_rules_revision
from schemas.rules import Rule
from tests.support.intake_site import GAME_CN, Site, intake_site

TIMEOUT = 0.5  # seconds


@pytest.fixture
async def site(tmp_path):
    async with intake_site(tmp_path) as site:
        yield site


async def newest(table: Table) -> RulesRevision:
    return await read_rules_revision(table, TIMEOUT)


def rule(number: int) -> Rule:
    return Rule(name=f"rule-{number}", source="game-cn", destination="game-eu")


async def test_nothing_declared_is_a_revision_too(site: Site):
    assert await newest(site.table) == (-1, True)


async def test_it_covers_what_was_declared_before(site: Site):
    for number in range(100):
        rev = await site.declare(rule(number))
        found = await newest(site.table)
        assert found.current
        assert found.rev >= rev


async def test_concurrent_requests_each_see_their_own_declaration(site: Site):
    async def declare_and_read(number: int) -> bool:
        rev = await site.declare(rule(number))
        return (await newest(site.table)).rev >= rev

    assert all(await asyncio.gather(*(declare_and_read(number) for number in range(100))))


async def test_an_unavailable_log_gives_the_last_known_revision(site: Site):
    rev = await site.declare(GAME_CN)
    await newest(site.table)
    await site.log.close()
    assert await newest(site.table) == (rev, False)


async def test_a_table_that_stands_still_gives_the_last_known_revision_in_time(site: Site):
    rev = await site.declare(GAME_CN)
    await newest(site.table)
    site.following.cancel()
    began = asyncio.get_running_loop().time()
    assert set(await asyncio.gather(*(newest(site.table) for _ in range(20)))) == {(rev, False)}
    assert asyncio.get_running_loop().time() - began < TIMEOUT + 0.3


async def test_a_cancelled_request_disturbs_no_other(site: Site):
    cancelled, other = asyncio.create_task(newest(site.table)), asyncio.create_task(newest(site.table))
    await asyncio.sleep(0)
    cancelled.cancel()
    assert (await other).current
    with pytest.raises(asyncio.CancelledError):
        await cancelled
