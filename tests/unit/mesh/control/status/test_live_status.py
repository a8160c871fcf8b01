"""Which agents are live: by the clock of the log, whatever the clocks of the machines say."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from mesh.clock import SystemClock
from mesh.control.ports import ControlPorts
from mesh.control.settings import ControlSettings
from mesh.control.status.live_status import LiveStatus
from mesh.log.port import Append, Log
from mesh.log.sqlite import open_log
from mesh.metrics import Metrics
from schemas import codec, topics
from schemas.completions import AGENT_LIVES_FOR, Heartbeat
from schemas.names import Region
from tests.support.manual_clock import ManualClock
from tests.support.shifted_clock import ShiftedClock
from tests.unit.mesh.control.status.test_diagnosis import MESH, state_of

HERE = Region("cn")


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not look():
            await asyncio.sleep(0.01)


async def beat(log: Log, agent: str, time: datetime) -> None:
    found = Heartbeat(id=agent, time=time, agent=agent, region=HERE, rules_rev=1, running=0, places={})
    await log.append([Append(topics.status(HERE), found.key, codec.encode(found))])


@pytest.mark.parametrize("minutes", [-10, 10])
@pytest.mark.parametrize("whose", ["agent", "control"])
async def test_a_wrong_clock_of_one_machine_makes_no_agent_dead(
    tmp_path: Path, minutes: int, whose: str
) -> None:
    wrong = ShiftedClock(timedelta(minutes=minutes))
    agent, control = (wrong, SystemClock()) if whose == "agent" else (SystemClock(), wrong)
    log_clock = ManualClock(datetime.now(UTC))
    log = await open_log(tmp_path / "mesh.db", clock=log_clock)
    await log.ensure([topics.status(HERE)])
    ports = ControlPorts(
        log=log, state=state_of(MESH), clock=control, metrics=Metrics(CollectorRegistry()), random=lambda: 0.5
    )
    status = LiveStatus(ports, ControlSettings())
    running = asyncio.create_task(status.run())

    def live() -> set[str]:
        return {one.agent for one in status.agents()}

    try:
        await until(lambda: status.is_read(HERE))
        await beat(log, "killed", agent.now())
        await until(lambda: live() == {"killed"})
        await log_clock.sleep(AGENT_LIVES_FOR.total_seconds())
        await beat(log, "live", agent.now())
        await until(lambda: live() == {"live"})
        is_live, found = status.of_region(HERE)
        assert (is_live, [one.agent for one in found]) == (True, ["live"])
    finally:
        running.cancel()
        await asyncio.wait([running])
        await log.close()
