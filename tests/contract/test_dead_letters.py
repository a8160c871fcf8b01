"""Resolved dead letters stay resolved on either log, also after a crash of control."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from prometheus_client import CollectorRegistry

from mesh.clock import SystemClock
from mesh.control.ports import ControlPorts
from mesh.control.status.dead_letters import DeadLetters
from mesh.log.dead_letters import send_to_dlq
from mesh.log.port import Log
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from schemas import topics
from schemas.codec import encode
from schemas.names import Region
from schemas.state import StateRecord
from schemas.topology import RegionDeclaration
from tests.contract.conftest import Engine
from tests.support.control_site import until
from tests.support.manual_clock import ManualClock


async def test_a_resolved_dead_letter_is_not_shown_again_by_the_next_control(
    engine: Engine, region: Region
) -> None:
    log = await engine.open()
    await log.ensure([topics.dead_letters(region)])
    for number, hours in enumerate((3, 2, 0, 0)):
        await _send_to_dlq(log, region, number, hours)
    async with _following(log, region) as dead_letters:
        await until(lambda: _shown(dead_letters) == [3, 2, 1, 0], engine.time_limit)
        one = dead_letters.newest()[0][1].dead_letter
        assert await dead_letters.close(one.id)
        assert not await dead_letters.close(one.id)
        assert await dead_letters.close_all(SystemClock().now() - timedelta(minutes=150)) == 1
        assert _shown(dead_letters) == [2, 1]
    await engine.crash(log)
    log = await engine.open()
    await _send_to_dlq(log, region, 9, 0)
    async with _following(log, region) as dead_letters:
        await until(lambda: _shown(dead_letters)[:1] == [9], engine.time_limit)
        assert _shown(dead_letters) == [9, 2, 1]
        assert await dead_letters.close_all(None) == 3
        assert _shown(dead_letters) == []


async def _send_to_dlq(log: Log, region: Region, number: int, hours: int) -> None:
    """Sends a dead letter as of some hours ago."""
    clock = ManualClock(SystemClock().now() - timedelta(hours=hours))
    raw = b"%d" % number
    await send_to_dlq(
        log, region, raw=raw, reason="no shape", position=f"x[0]@{number}", key="x", clock=clock
    )


def _shown(dead_letters: DeadLetters) -> list[int]:
    return [int(kept.dead_letter.payload_bytes()) for _, kept in dead_letters.newest()]


@asynccontextmanager
async def _following(log: Log, region: Region) -> AsyncIterator[DeadLetters]:
    state, declared = MeshState(), RegionDeclaration(name=region, jurisdiction="global")
    value = declared.model_dump(mode="json")
    record = StateRecord(id="1", time=SystemClock().now(), noun=declared.noun, value=value)
    state.apply(declared.key, encode(record), 0)
    ports = ControlPorts(
        log=log, state=state, clock=SystemClock(), metrics=Metrics(CollectorRegistry()), random=lambda: 0.5
    )
    dead_letters = DeadLetters(ports)
    running = asyncio.create_task(dead_letters.run())
    try:
        yield dead_letters
    finally:
        running.cancel()
        await asyncio.wait([running])
