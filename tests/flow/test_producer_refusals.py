"""What an intake refuses is told on the log, so that whoever asks control hears of it, and costs it little."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from mesh.clock import SystemClock
from mesh.log.sqlite import open_log
from mesh.rules.state import MeshState
from producer import refusals
from producer.refusals import Refusals
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
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(refusals, "_TELL_EVERY", 0.05)
    async with intake_site(tmp_path) as site:
        yield site


async def told(site: Site) -> dict[str, Refusal]:
    """The last of each instance, by its key."""
    records = await site.records(topics.status(BEIJING))
    return {record.key: decode(record.value or b"", Refusal) for record in records}


async def counted(site: Site, count: int, name: str = "game-cn") -> Refusal:
    async def is_told() -> bool:
        found = (await told(site)).get(f"refusal/intake-1/{name}")
        return found is not None and found.count == count

    await until(is_told)
    return (await told(site))[f"refusal/intake-1/{name}"]


async def test_a_wrong_secret_is_told_counted_and_taken_back_when_it_is_right(site: Site) -> None:
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
    assert (await counted(site, 1)).taken is None  # counted anew


async def test_the_first_is_told_at_once_and_the_rest_together(site: Site, tmp_path: Path) -> None:
    """However many come, the log gets a record of each name, and of names of nobody's few."""
    await site.declare(GAME_CN, RegionDeclaration(name="beijing", jurisdiction="cn"))
    for number in range(100):
        assert (await site.post(b"{}", to=f"nobody-{number}"))[0] == 404
    assert (await counted(site, 80, OTHERS)).status == 404
    assert len(await told(site)) == 21
    await site.post(b"{}", {"X-Forwarded-For": "10.0.0.7"})  # not straight from this machine
    assert (await counted(site, 1)).status == 403


async def test_what_no_region_can_be_told_of_waits_for_one(site: Site) -> None:
    assert (await site.post(b"{}", to="game-us"))[0] == 404
    await asyncio.sleep(0.1)
    assert await told(site) == {}
    await site.declare(RegionDeclaration(name="beijing", jurisdiction="cn"))
    await site.table.caught_up()
    assert (await site.post(b"{}", to="game-us"))[0] == 404
    assert "no instance is named 'game-us'" in (await counted(site, 2, "game-us")).reason


async def test_a_log_that_is_away_is_told_later_and_a_stop_takes_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "_TELL_EVERY", 0.02)
    log = await open_log(tmp_path / "mesh.db", clock=SystemClock())
    state = MeshState()
    _declare(state, FRANKFURT)
    found = Refusals("intake-1", log=log, state=state, clock=SystemClock())
    telling = asyncio.create_task(found.run())
    found.refused("game-cn", 404, "no such", None)
    await asyncio.sleep(0.1)  # its topic does not exist yet, which the log refuses
    await log.ensure([topics.status(FRANKFURT.name)])

    async def is_told() -> bool:
        return sum((await log.end(topics.status(FRANKFURT.name))).values()) == 1

    await until(is_told)
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    async with aclosing(log.follow(topics.status(FRANKFURT.name))) as batches:
        (last,) = (await anext(batches)).records  # a clean stop takes it back
    assert (last.key, last.value) == ("refusal/intake-1/game-cn", None)
    await log.close()


def _declare(state: MeshState, region: RegionDeclaration) -> None:
    value = region.model_dump(mode="json")
    record = StateRecord(id="1", time=SystemClock().now(), noun=region.noun, value=value)
    state.apply(region.key, encode(record), 0)
