"""`regmesh explain`: which rules would take an image, and why the others not."""

from typing import Annotated
from urllib.parse import quote

import typer

from mesh.node.options import Output, Server
from mesh.node.output import Columns, Format, show
from mesh.node.remote import Remote

_COLUMNS: Columns = {
    "RULE": lambda it: it["rule"],
    "REPLICA": lambda it: it["replica"],
    "COPIES": lambda it: it["verdict"],
    "TO": lambda it: it["destination"],
    "BECAUSE": lambda it: it["because"],
}


def register(app: typer.Typer) -> None:
    app.command()(explain)


def explain(
    image: Annotated[
        str, typer.Argument(help="INSTANCE/REPOSITORY:TAG", metavar="IMAGE", show_default=False)
    ],
    output: Output = Format.TABLE,
    server: Server = "http://127.0.0.1:8080",
) -> None:
    """Say for an image, rule by rule and replica by replica, whether it would be copied and where to, or which filter does not hold.

    Judged by what is declared; the image need not be there. What only its manifest tells is `maybe`.
    """
    instance, slash, rest = image.partition("/")
    repository, colon, tag = rest.rpartition(":")
    if not slash or not colon:
        raise typer.BadParameter(f"{image!r} is no INSTANCE/REPOSITORY:TAG, such as game-cn/game/server:v1.0")
    path = f"/api/v1/explain/{quote(instance)}/{quote(repository)}"
    show(Remote(server).call("GET", path, query={"tag": tag})["items"], _COLUMNS, output)
