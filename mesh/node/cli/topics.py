"""`regmesh topics create`: creates every topic of the mesh on the log, with its settings."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from mesh.clock import SystemClock
from mesh.credentials.secrets import Secrets
from mesh.node import engines, mesh_file
from mesh.node.cli.daemon_options import parse_region
from mesh.node.cli.options import SharedLog, option
from mesh.rules.validation import declarations
from schemas.names import Region
from schemas.topics import all_topics
from schemas.topology import RegionDeclaration

topics = typer.Typer(help="Create the topics of the log.", no_args_is_help=True)


@topics.command("create")
def create(
    log: SharedLog = None,
    file: Annotated[Path | None, option("A mesh.yaml that declares the regions.", "--file", "-f")] = None,
    region: Annotated[list[str] | None, option("A region; repeat for more.", "--region")] = None,
) -> None:
    """Create every topic of the mesh that is missing.

    There are two global topics and seven for each region. Existing topics stay as they are. Run this once, with rights
    that the daemons do not need. Example: regmesh topics create --log kafka://kafka-1:9092 -f mesh.yaml
    """
    if log is None:
        raise typer.BadParameter("name the log with --log or REGMESH_LOG")
    regions = [*_declared_regions(file), *map(parse_region, region or [])]
    made = asyncio.run(_create(log, all_topics(list(dict.fromkeys(regions)))))
    for topic in made:
        print(f"{topic} created")
    print(
        f"{len(made)} created" + ("" if regions else "; for topics of regions name them with -f or --region")
    )


async def _create(url: str, wanted: list[str]) -> list[str]:
    log = await engines.open_log(url, clock=SystemClock(), secrets=Secrets(os.environ))
    try:
        return list(await log.ensure(wanted))
    finally:
        await log.close()


def _declared_regions(path: Path | None) -> list[Region]:
    if path is None:
        return []
    file = mesh_file.read(path)
    mesh_file.check(file)
    placed, _ = declarations.judge(file.document)
    return [item.thing.name for item in placed if isinstance(item.thing, RegionDeclaration)]
