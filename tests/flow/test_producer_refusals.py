"""An intake reports what it refuses on the log, where control reads it, with few records."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from mesh.clock import SystemClock
from mesh.log.sqlite import open_log
from mesh.rules.state import MeshState
from producer.refusals import RefusalReporter
from producer.settings import ProducerSettings
from schemas import topics
from schemas.codec import decode, encode
from schemas.refusals import OTHERS, Refusal
from schemas.state import StateRecord
from schemas.topology import RegionDeclaration
from tests.support.control_site import until
from tests.support.intake_site import BEIJING, GAME_CN, GUARDED, SECRET, Site, intake_site

FRANKFURT = RegionDeclaration(name="frankfurt", jurisdiction="global")
RIGHT = {"Authorization": f"Bearer {SECRET}"}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with intake_site(tmp_path, settings=ProducerSettings(refusal_report_interval=0.05)) as site:
        yield site


async def reported(site: Site) -> dict[str, Refusal]:
    """The last of each instance, by its key."""
    records = await site.records(topics.status(BEIJING))
    return {record.key: decode(record.value or b"", Refusal) for record in records}


async def counted(site: Site, count: int, name: str = "game-cn") -> Refusal:
    async def is_reported() -> bool:
        found = (await reported(site)).get(f"refusal/intake-1/{name}")
        return found is not None and found.count == count

    await until(is_reported)
    return (await reported(site))[f"refusal/intake-1/{name}"]


async def test_a_wrong_secret_is_reported_and_counted_until_one_is_accepted(site: Site) -> None:
    await site.declare(GUARDED)
    for _ in range(3):
        assert (await site.post(b"{}", {"Authorization": "Bearer not-the-secret"}))[0] == 401
    found = await counted(site, 3)
    assert (found.status, found.sender, found.taken) == (401, "127.0.0.1", None)
    assert "intake_secret of instance 'game-cn' is missing or wrong" in found.reason
    assert (await site.post(b'{"events": []}', RIGHT))[0] == 202

    async def is_taken() -> bool:
        return (await counted(site, 3)).taken is not None

    await until(is_taken)
    written = [record.value or b"" for record in await site.records(topics.status(BEIJING))]
    assert b"not-the-secret" not in b"".join(written)
    assert SECRET.encode() not in b"".join(written)
    await site.post(b"{}")
    assert (await counted(site, 1)).taken is None  # counted from one again


async def test_the_first_is_reported_at_once_and_the_rest_in_one_record(site: Site, tmp_path: Path) -> None:
    """However many arrive, the log gets one record of each name, and few of undeclared names."""
    await site.declare(GAME_CN, RegionDeclaration(name="beijing", jurisdiction="cn"))
    for number in range(100):
        assert (await site.post(b"{}", to=f"nobody-{number}"))[0] == 404
    assert (await counted(site, 80, OTHERS)).status == 404
    assert len(await reported(site)) == 21
    await site.post(b"{}", {"X-Forwarded-For": "10.0.0.7"})  # not directly from this machine
    assert (await counted(site, 1)).status == 403


async def test_a_report_waits_until_a_region_is_declared(site: Site) -> None:
    assert (await site.post(b"{}", to="game-us"))[0] == 404
    await asyncio.sleep(0.1)
    assert await reported(site) == {}
    await site.declare(RegionDeclaration(name="beijing", jurisdiction="cn"))
    await site.table.caught_up()
    assert (await site.post(b"{}", to="game-us"))[0] == 404
    assert "no instance is named 'game-us'" in (await counted(site, 2, "game-us")).reason


async def test_an_unavailable_log_delays_the_report_and_a_stop_withdraws_it(tmp_path: Path) -> None:
    log = await open_log(tmp_path / "mesh.db", clock=SystemClock())
    state = MeshState()
    _declare(state, FRANKFURT)
    found = RefusalReporter("intake-1", log=log, state=state, clock=SystemClock(), interval=0.02)
    reporting = asyncio.create_task(found.run())
    found.count_refused("game-cn", 404, "no such", None)
    await asyncio.sleep(0.1)  # its topic does not exist yet, which the log refuses
    await log.ensure([topics.status(FRANKFURT.name)])

    async def is_reported() -> bool:
        return sum((await log.end(topics.status(FRANKFURT.name))).values()) == 1

    await until(is_reported)
    reporting.cancel()
    await asyncio.gather(reporting, return_exceptions=True)
    async with aclosing(log.follow(topics.status(FRANKFURT.name))) as batches:
        (last,) = (await anext(batches)).records  # a clean stop withdraws it
    assert (last.key, last.value) == ("refusal/intake-1/game-cn", None)
    await log.close()


def _declare(state: MeshState, region: RegionDeclaration) -> None:
    value = region.model_dump(mode="json")
    record = StateRecord(id="1", time=SystemClock().now(), noun=region.noun, value=value)
    state.apply(region.key, encode(record), 0)
