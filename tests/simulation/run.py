"""One run: a number of random steps, then all faults end, and what must hold is checked."""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.simulation import judge
from tests.simulation.world import REPLICAS, RULE, World, world

_IDLE_WITHIN = 60.0  # seconds


async def simulate(seed: int, steps: int, report: Callable[[str], None]) -> list[str]:
    """Returns what did not hold."""
    with tempfile.TemporaryDirectory(prefix="regmesh-simulation-") as folder:
        async with world(Path(folder), seed, report) as mesh:
            for _ in range(steps):
                await mesh.step()
                if broken := judge.broken_now(mesh):
                    return broken
            await mesh.heal()
            return await _until_idle(mesh)


async def _until_idle(mesh: World) -> list[str]:
    executions = [
        await mesh.site.api.request("POST", "/api/v1/executions", body={"rule": it})
        for it in (RULE, *REPLICAS)
    ]
    left: list[str] = []
    try:
        async with asyncio.timeout(_IDLE_WITHIN):
            while left := [
                *judge.broken_now(mesh),
                *await _unended(mesh, executions),
                *judge.differences(mesh),
            ]:
                await asyncio.sleep(0.1)
    except TimeoutError:
        return left
    return [f"agent {name} ended" for name, (_, running) in mesh.site.agents.items() if running.done()]


async def _unended(mesh: World, executions: list[dict[str, Any]]) -> list[str]:
    """Returns executions and tasks that have not ended, and replicas whose comparison has not ended."""
    found = {it["id"]: it for it in (await mesh.site.get("executions", limit="1000"))["items"]}
    running = [
        f"execution {it['id']} of {it['rule']} is in progress"
        for it in found.values()
        if it["status"] == "InProgress"
    ]
    for one in executions:
        execution = found[one["id"]]
        if execution["rule"] in REPLICAS and execution["surplus"] is None:
            running.append(f"{execution['rule']} is not compared")
    for status in ("InProgress", "Pending"):
        running += [f"{it['destination']} is {status}" for it in await mesh.site.logs(status=status)]
    return running
