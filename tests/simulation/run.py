"""One run: so many things happen, all is mended, and what must hold is looked at."""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.simulation import judge
from tests.simulation.world import REPLICAS, RULE, World, world

_CALM_WITHIN = 60.0  # seconds


async def simulate(seed: int, steps: int, say: Callable[[str], None]) -> list[str]:
    """What did not hold; empty when all did."""
    with tempfile.TemporaryDirectory(prefix="regmesh-simulation-") as folder:
        async with world(Path(folder), seed, say) as mesh:
            for _ in range(steps):
                await mesh.step()
                if broken := judge.broken_now(mesh):
                    return broken
            await mesh.heal()
            return await _calm(mesh)


async def _calm(mesh: World) -> list[str]:
    asked = [
        await mesh.site.api.request("POST", "/api/v1/executions", body={"rule": it})
        for it in (RULE, *REPLICAS)
    ]
    left: list[str] = []
    try:
        async with asyncio.timeout(_CALM_WITHIN):
            while left := [*judge.broken_now(mesh), *await _unended(mesh, asked), *judge.differences(mesh)]:
                await asyncio.sleep(0.1)
    except TimeoutError:
        return left
    return [f"agent {name} ended" for name, (_, running) in mesh.site.agents.items() if running.done()]


async def _unended(mesh: World, asked: list[dict[str, Any]]) -> list[str]:
    """Executions, tasks that run or are parked, and comparisons of replicas that are not done."""
    found = {it["id"]: it for it in (await mesh.site.get("executions", limit="1000"))["items"]}
    running = [
        f"execution {it['id']} of {it['rule']} goes on"
        for it in found.values()
        if it["status"] == "InProgress"
    ]
    for one in asked:
        execution = found[one["id"]]
        if execution["rule"] in REPLICAS and execution["surplus"] is None:
            running.append(f"{execution['rule']} is not compared")
    for status in ("InProgress", "Pending"):
        running += [f"{it['destination']} is {status}" for it in await mesh.site.logs(status=status)]
    return running
