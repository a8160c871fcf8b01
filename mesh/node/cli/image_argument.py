"""INSTANCE/REPOSITORY:TAG, as people name an image of theirs to a command."""

from typing import NamedTuple

import typer

from mesh.node.cli import remote


class ImageArgument(NamedTuple):
    instance: str
    repository: str
    tag: str | None

    def path(self, section: str) -> str:
        """Of the API, below `/api/v1/{section}`."""
        return remote.path(section, self.instance, *self.repository.split("/"))


def parse(text: str) -> ImageArgument:
    """With or without a tag; wrong use when it is no such name."""
    instance, _, rest = text.partition("/")
    repository, colon, tag = rest.partition(":")
    if "@" in text.partition("/")[2]:
        raise typer.BadParameter(
            f"{text!r} has a digest: name the image by its tag (or, for all tags, by none)"
        )
    if "" in (instance, *repository.split("/")) or (colon and not tag) or ":" in instance:
        raise typer.BadParameter(
            f"{text!r} is no INSTANCE/REPOSITORY[:TAG], such as game-cn/game/server:v1.0 (`regmesh get instances`)"
        )
    return ImageArgument(instance, repository, tag or None)


def parse_tagged(text: str) -> tuple[ImageArgument, str]:
    """With its tag, which has to be there."""
    image = parse(text)
    if image.tag is None:
        raise typer.BadParameter(f"{text!r} is no INSTANCE/REPOSITORY:TAG, such as game-cn/game/server:v1.0")
    return image, image.tag
