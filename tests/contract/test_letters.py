"""Dead letters that a human dealt with stay so on either log, whatever becomes of control."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from mesh.clock import ManualClock, SystemClock
from mesh.control.letters import Letters
from mesh.log.dead_letters import bury
from mesh.log.port import Log
from mesh.rules.state import MeshState
from schemas import topics
from schemas.codec import encode
from schemas.names import Region
from schemas.state import StateRecord
from schemas.topology import RegionDeclaration
from tests.contract.conftest import Engine
from tests.control_site import until


async def test_what_was_dealt_with_is_not_shown_again_by_the_next_control(
    engine: Engine, region: Region
) -> None:
    log = await engine.open()
    await log.ensure([topics.dead_letters(region)])
    for number, hours in enumerate((3, 2, 0, 0)):
        await _bury(log, region, number, hours)
    async with _following(log, region) as letters:
        await until(lambda: _shown(letters) == [3, 2, 1, 0], engine.patience)
        one = letters.newest()[0][1].letter
        assert await letters.deal_with_one(one.id)
        assert not await letters.deal_with_one(one.id)
        assert await letters.deal_with_all(SystemClock().now() - timedelta(minutes=150)) == 1
        assert _shown(letters) == [2, 1]
    await engine.crash(log)
    log = await engine.open()
    await _bury(log, region, 9, 0)
    async with _following(log, region) as letters:
        await until(lambda: _shown(letters)[:1] == [9], engine.patience)
        assert _shown(letters) == [9, 2, 1]
        assert await letters.deal_with_all(None) == 3
        assert _shown(letters) == []


async def _bury(log: Log, region: Region, number: int, hours: int) -> None:
    """What nobody could read so many hours ago."""
    clock = ManualClock(SystemClock().now() - timedelta(hours=hours))
    raw = b"%d" % number
    await bury(log, region, raw=raw, reason="no shape", position=f"x[0]@{number}", key="x", clock=clock)


def _shown(letters: Letters) -> list[int]:
    return [int(kept.letter.payload_bytes()) for _, kept in letters.newest()]


@asynccontextmanager
async def _following(log: Log, region: Region) -> AsyncIterator[Letters]:
    state, declared = MeshState(), RegionDeclaration(name=region, jurisdiction="global")
    value = declared.model_dump(mode="json")
    record = StateRecord(id="1", time=SystemClock().now(), noun=declared.noun, value=value)
    state.apply(declared.key, encode(record), 0)
    letters = Letters(log=log, state=state, clock=SystemClock(), random=lambda: 0.5)
    running = asyncio.create_task(letters.run())
    try:
        yield letters
    finally:
        running.cancel()
        await asyncio.wait([running])
