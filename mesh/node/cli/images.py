"""Commands about one image: `regmesh explain` and `regmesh where`."""

import sys
from typing import Annotated, NamedTuple

import typer

from mesh.node.cli.control_client import ControlClient, api_path
from mesh.node.cli.options import DEFAULT_SERVER, Output, Server, WideOutput, argument
from mesh.node.cli.output import Columns, Format, Item, WideFormat, fields, lag, show, time

_SHORT_DIGEST = 19  # characters, `sha256:` and 12 digits; -o json has all of it


class ImageArgument(NamedTuple):
    """INSTANCE/REPOSITORY[:TAG] as users name an image."""

    instance: str
    repository: str
    tag: str | None

    def path(self, section: str) -> str:
        """Returns the path of the image in a section of the API."""
        return api_path(section, self.instance, *self.repository.split("/"))


def parse_image(text: str) -> ImageArgument:
    """Parses an image with or without a tag.

    Raises:
        typer.BadParameter: It has a digest, or another form.
    """
    instance, _, rest = text.partition("/")
    repository, colon, tag = rest.partition(":")
    if "@" in rest:
        raise typer.BadParameter(
            f"{text!r} has a digest: name the image by its tag, or without a tag for all of them"
        )
    if "" in (instance, *repository.split("/")) or (colon and not tag) or ":" in instance:
        raise typer.BadParameter(
            f"{text!r} is not INSTANCE/REPOSITORY[:TAG], such as game-cn/game/server:v1.0 (`regmesh get instances`)"
        )
    return ImageArgument(instance, repository, tag or None)


def parse_tagged_image(text: str) -> tuple[ImageArgument, str]:
    """Parses an image that has to have a tag, and returns both.

    Raises:
        typer.BadParameter: It has no tag, or another form.
    """
    image = parse_image(text)
    if image.tag is None:
        raise typer.BadParameter(f"{text!r} is not INSTANCE/REPOSITORY:TAG, such as game-cn/game/server:v1.0")
    return image, image.tag


def explain(
    image: Annotated[str, argument("INSTANCE/REPOSITORY:TAG; it need not exist.", metavar="IMAGE")],
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Show which rules copy an image, and why others do not.

    The answer comes from the declarations alone; `maybe` means that it depends on the image's manifest. Example:
    regmesh explain game-cn/game/server:v1.0
    """
    parsed, tag = parse_tagged_image(image)
    answer = ControlClient(server).call("GET", parsed.path("explain"), query={"tag": tag})
    show(answer["items"], _EXPLAIN_COLUMNS, output)


def where(
    image: Annotated[str, argument("INSTANCE/REPOSITORY[:TAG]; without a tag, all tags.", metavar="IMAGE")],
    output: WideOutput = WideFormat.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Show which place holds which digest of an image, since when.

    Places are the instance, its replicas, and the destinations of rules. `current` means that the place was seen to
    hold the same digest as the instance, `announced` that its registry announced so and nobody has looked yet. SEEN BY
    is `agent` when an agent has read the digest from the registry, or `notification` when the registry has reported
    it; -o wide shows when it was seen. Times are UTC. Example: regmesh where game-cn/game/server:v1.0
    """
    parsed = parse_image(image)
    query = {"tag": parsed.tag} if parsed.tag is not None else {}
    tags = ControlClient(server).items(parsed.path("images"), query)
    columns = _WIDE_COLUMNS if output is WideFormat.WIDE else _WHERE_COLUMNS
    if output.style is not Format.TABLE:
        show(tags, columns, output.style)
        return
    rows = [
        {**place, "tag": tag["tag"], "is_instance": place["place"] == parsed.instance}
        for tag in tags
        for place in tag["places"]
    ]
    show(rows, columns, output.style)
    for tag in tags:
        if tag["note"] is not None:
            print(f"note: {tag['tag']}: {tag['note']}")
    if not tags:
        print(
            f"regmesh: no tag of {image} is known: no notification and no task named one, or all were deleted",
            file=sys.stderr,
        )


def _lag_behind_instance(row: Item) -> str | None:
    return None if row["is_instance"] else lag(row["lag_ms"])


_EXPLAIN_COLUMNS: Columns = {
    **fields("rule", "replica"),
    "COPIES": lambda it: it["verdict"],
    **fields("destination"),
    "REASON": lambda it: it["because"],
}
_WHERE_COLUMNS: Columns = {
    **fields("tag", "place", "region", "repository"),
    "DIGEST": lambda it: it["digest"][:_SHORT_DIGEST] if it["digest"] else None,
    "SINCE": lambda it: time(it["since"]),
    **fields("state"),
    "LAG": _lag_behind_instance,
    **fields("referrers", "seen_by"),
}
_WIDE_COLUMNS: Columns = {**_WHERE_COLUMNS, "SEEN AT": lambda it: time(it.get("seen_at"))}
