"""`regmesh demo`: a release is copied from Beijing to its replicas, and one tag of it to Frankfurt and its replicas.

    topology   nine regions, two instances, seven replicas, and one rule that crosses the border
    stage      built-in registries and every role on an embedded log, in a temporary directory
    release    the images that are pushed, at the speed of a slow client
    progress   what each registry has while the copies run
    report     locations, bytes sent, nearby pulls and the border, each checked

All traffic goes over HTTP on loopback; only the speed of the links is simulated.
"""

import asyncio
import tempfile
from pathlib import Path

from rich.console import Console

from mesh.errors import RegmeshError
from mesh.node import lifecycle
from mesh.node.cli.table import Terminal
from mesh.node.demo import progress, release, report, topology
from mesh.node.demo.stage import Stage, open_stage

_TIMEOUT = 120.0  # seconds for the whole demo, about four times what it takes


class DemoFailed(RegmeshError):
    """The demo did not end in time, or its report does not hold."""

    code = "demo_failed"


def run() -> bool:
    """Runs the demo and returns whether it reached its end, rather than being interrupted.

    Raises:
        DemoFailed: It did not end in time, or its report does not hold.
    """
    console = Terminal(highlight=False, soft_wrap=True)
    ended = False
    with tempfile.TemporaryDirectory(prefix="regmesh-demo-") as folder:

        async def main(stopping: asyncio.Event) -> None:
            nonlocal ended
            async with open_stage(Path(folder)) as stage:
                showing = asyncio.create_task(_show(stage, console))
                stop = asyncio.create_task(stopping.wait())
                await asyncio.wait([showing, stop], return_when=asyncio.FIRST_COMPLETED)
                stop.cancel()
                if not showing.done():
                    showing.cancel()
                    return
                showing.result()
                ended = True

        lifecycle.run(main)
    return ended


async def _show(stage: Stage, console: Console) -> None:
    _introduce(stage, console)
    try:
        async with asyncio.timeout(_TIMEOUT):
            images = [release.make("game/server"), release.make("game/compliance")]
            async with progress.watch(stage, images[0], console) as seen:
                await release.push(stage, images[0], topology.BOTH_TAGS, console)
                await release.push(stage, images[1], topology.MAINLAND_TAG, console)
                await seen.wait_until_everywhere(images)
            problems = await report.show(stage, images, seen, console)
    except TimeoutError as error:
        raise DemoFailed(f"the demo did not end within {_TIMEOUT:.0f} s") from error
    if problems:
        raise DemoFailed("; ".join(problems))
    console.print("next: `regmesh up -f mesh.yaml` with your own registries, as README.md shows")


def _introduce(stage: Stage, console: Console) -> None:
    console.print("[bold]regmesh demo[/bold]: one release, nine regions, one border")
    for name, region, replicas, jurisdiction in (
        (topology.CN, "beijing", topology.MAINLAND, "cn-mainland"),
        (topology.EU, "frankfurt", topology.OUTSIDE, "global"),
    ):
        console.print(f"  {name} in {region}, jurisdiction {jurisdiction}")
        console.print(f"    replicas in {', '.join(replicas)}")
    console.print(f"  rule release-to-eu: {topology.CN} to {topology.EU}, only tags *-global")
    console.print(f"  API {stage.url}/api/v1")
    console.print(f"  gateway in singapore {stage.gateway}")
