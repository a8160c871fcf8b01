"""`regmesh where`: which place holds which digest of an image, and since when."""

import asyncio
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from mesh.node.cli import image_argument
from mesh.node.cli.options import Output, Server
from mesh.node.cli.output import Columns, Format, show
from mesh.node.cli.remote import Remote

_LONG_DIGEST = 19  # characters: enough to tell one from another; -o json has all


def register(app: typer.Typer) -> None:
    app.command()(where)


def where(
    image: Annotated[
        str, typer.Argument(help="INSTANCE/REPOSITORY[:TAG]", metavar="IMAGE", show_default=False)
    ],
    output: Output = Format.TABLE,
    server: Server = "http://127.0.0.1:8080",
) -> None:
    """Show which place holds which digest of an image, since when.

    Of one tag, or of all tags of a repository. Times are UTC. Places are the instance itself, its replicas, and
    where rules bring the tag to. SEEN BY agent: an agent of ours saw it there by HEAD; notification: its registry
    said so. `current`: it holds what the instance holds.
    """
    asked = image_argument.parse(image)
    query = {"limit": "1000"} | ({"tag": asked.tag} if asked.tag is not None else {})
    tags = asyncio.run(_all(Remote(server), asked.path("images"), query))
    if output is not Format.TABLE:
        show(tags, _COLUMNS, output)
        return
    show([row for tag in tags for row in _rows(tag, asked.instance)], _COLUMNS, output)
    for note in _notes(tags):
        print(note)
    if not tags:
        print(
            f"regmesh: no tag of {image} is known: none was announced or read by a task, or all were deleted",
            file=sys.stderr,
        )


async def _all(remote: Remote, path: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
    return [item async for item in remote.pages(path, query, most=None)]


def _rows(tag: Mapping[str, Any], instance: str) -> Iterable[dict[str, Any]]:
    for place in tag["places"]:
        yield {**place, "tag": tag["tag"], "is_instance": place["place"] == instance}


def _notes(tags: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for tag in tags:
        if tag["note"] is not None:
            yield f"note: {tag['tag']}: {tag['note']}"


def _lag(row: Mapping[str, Any]) -> str | None:
    if row["lag_ms"] is None or row["is_instance"]:
        return None
    return f"{row['lag_ms'] / 1000:.1f} s"


_COLUMNS: Columns = {
    "TAG": lambda it: it["tag"],
    "PLACE": lambda it: it["place"],
    "REGION": lambda it: it["region"],
    "REPOSITORY": lambda it: it["repository"],
    "DIGEST": lambda it: it["digest"][:_LONG_DIGEST] if it["digest"] else None,
    "SINCE": lambda it: it["since"][:19].replace("T", " ") if it["since"] else None,
    "STATE": lambda it: it["state"],
    "LAG": _lag,
    "REFERRERS": lambda it: it["referrers"],
    "SEEN BY": lambda it: it["seen_by"],
}
