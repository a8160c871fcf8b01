"""`regmesh demo`: a release goes from Beijing to its replicas, and under a second tag to Frankfurt and its replicas.

    topology   nine regions, two instances, seven replicas, one rule that crosses the border
    stage      registries of our own and every role, on an embedded log in a folder that is removed at the end
    release    what is pushed, layer by layer, as slowly as a client's line lets it
    watching   what each region has, while it comes
    report     who has what and since when, who sent how much, where a client in Singapore pulls; all of it checked

Nothing is faked but the registries' age and the speed of the lines: everything goes over HTTP on loopback.
"""

import asyncio
import tempfile
from pathlib import Path

from rich.console import Console

from mesh.errors import RegmeshError
from mesh.node import lifecycle
from mesh.node.cli.table import Terminal
from mesh.node.demo import release, report, topology, watching
from mesh.node.demo.stage import Stage, on_stage

_WITHIN = 120.0  # seconds for all of it; it takes about a quarter of that


class DemoFailed(RegmeshError):
    code = "demo_failed"


def run() -> bool:
    """Run the demo to its end; False when it was interrupted before. `DemoFailed` when what it shows does not hold."""
    console = Terminal(highlight=False, soft_wrap=True)
    ended = False
    with tempfile.TemporaryDirectory(prefix="regmesh-demo-") as folder:

        async def main(stopping: asyncio.Event) -> None:
            nonlocal ended
            async with on_stage(Path(folder)) as stage:
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
        async with asyncio.timeout(_WITHIN):
            images = [release.make("game/server"), release.make("game/compliance")]
            async with watching.watch(stage, images[0], console) as seen:
                await release.push(stage, images[0], topology.BOTH_TAGS, console)
                await release.push(stage, images[1], topology.MAINLAND_TAG, console)
                await seen.everywhere(images)
            problems = await report.tell(stage, images, seen, console)
    except TimeoutError as error:
        raise DemoFailed(f"not all of it was done within {_WITHIN:.0f} s") from error
    if problems:
        raise DemoFailed("; ".join(problems))
    console.print("next: `regmesh up -f mesh.yaml` with registries of your own, as README.md shows")


def _introduce(stage: Stage, console: Console) -> None:
    console.print("[bold]regmesh demo[/bold]: one release, nine regions, one border")
    for name, region, replicas, jurisdiction in (
        (topology.CN, "beijing", topology.MAINLAND, "cn-mainland"),
        (topology.EU, "frankfurt", topology.OUTSIDE, "global"),
    ):
        console.print(f"  {name} in {region}, jurisdiction {jurisdiction}")
        console.print(f"    replicas in {', '.join(replicas)}")
    console.print(f"  rule release-to-eu: {topology.CN} to {topology.EU}, tags *-global and nothing else")
    console.print(f"  API {stage.url}/api/v1")
    console.print(f"  gateway in singapore {stage.gateway}")
