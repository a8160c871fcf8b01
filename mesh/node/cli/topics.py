"""`regmesh topics create`: every topic of the mesh, with the right settings."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from mesh.clock import SystemClock
from mesh.credentials.secrets import Secrets
from mesh.errors import InvalidInput
from mesh.node import engines, mesh_file
from mesh.node.cli.options import SharedLog
from mesh.rules.validation import declarations
from schemas import topics
from schemas.names import Region
from schemas.topology import RegionDeclaration


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Make the topics of the log.", no_args_is_help=True)
    group.command("create")(create)
    app.add_typer(group, name="topics")


def create(
    log: SharedLog = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="A mesh.yaml that names the regions.", show_default=False),
    ] = None,
    region: Annotated[
        list[str] | None, typer.Option("--region", help="A region; again for more.", show_default=False)
    ] = None,
) -> None:
    """Make every topic of the mesh that is missing.

    Two global ones, and seven for each region. Those that exist are left as they are. Do this once with rights that
    the daemons need not have.
    """
    if log is None:
        raise typer.BadParameter("name the log with --log or REGMESH_LOG")
    regions = [*_of_file(file), *map(_region, region or [])]
    made = asyncio.run(_create(log, topics.all_topics(list(dict.fromkeys(regions)))))
    for topic in made:
        print(f"{topic} created")
    print(f"{len(made)} created" + ("" if regions else "; name regions with -f or --region for theirs"))


async def _create(url: str, wanted: list[str]) -> list[str]:
    log = await engines.open_log(url, clock=SystemClock(), secrets=Secrets(os.environ))
    try:
        return list(await log.ensure(wanted))
    finally:
        await log.close()


def _of_file(path: Path | None) -> list[Region]:
    if path is None:
        return []
    file = mesh_file.read(path)
    mesh_file.check(file)
    placed, _ = declarations.judge(file.document)
    return [item.thing.name for item in placed if isinstance(item.thing, RegionDeclaration)]


def _region(name: str) -> Region:
    try:
        return Region(name)
    except ValueError as error:
        raise InvalidInput(str(error)) from error
