"""`regmesh explain`: which rules would take an image, and why the others not."""

from typing import Annotated

import typer

from mesh.node.cli import image_argument
from mesh.node.cli.options import Output, Server
from mesh.node.cli.output import Columns, Format, show
from mesh.node.cli.remote import Remote

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
    """Say which rules and replicas would take an image, and why not.

    Judged by what is declared; the image need not be there. What only its manifest tells is `maybe`.
    """
    asked, tag = image_argument.parse_tagged(image)
    show(Remote(server).call("GET", asked.path("explain"), query={"tag": tag})["items"], _COLUMNS, output)
