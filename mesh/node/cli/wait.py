"""`regmesh wait`: return when an image is where it should be."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from mesh.clock import Clock, SystemClock
from mesh.node.cli import arrival, image_argument
from mesh.node.cli.options import Server
from mesh.node.cli.output import over_the_last_line
from mesh.node.cli.remote import Remote, Unanswered
from schemas.names import Digest

_LOOK_EVERY = 0.5  # seconds
_ENDS = "200"  # of the sync log, to find why something did not come


def register(app: typer.Typer) -> None:
    app.command()(wait)


def wait(
    image: Annotated[
        str, typer.Argument(help="INSTANCE/REPOSITORY:TAG", metavar="IMAGE", show_default=False)
    ],
    region: Annotated[
        list[str] | None,
        typer.Option(
            help="Wait for this region; again for more. Else for all that it is brought to.",
            show_default=False,
        ),
    ] = None,
    digest: Annotated[
        str | None,
        typer.Option(help="Wait for this digest, not for what the instance's tag names.", show_default=False),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0, help="Give up after so many seconds.")] = 300,
    server: Server = "http://127.0.0.1:8080",
) -> None:
    """Wait until an image is where it is to be.

    That is until the agents of those regions saw by HEAD what the instance's tag names.

    Right after a push name its --digest: what the tag names is known a moment later, when its registry has told.
    Exits 0 when they did; 1 when time was up, with a line for each place that does not have it and why; 2 when it is
    brought to no place in a region.
    """
    asked, tag = image_argument.parse_tagged(image)
    if digest is not None:
        _check(digest)
    waiting = Waiting(Remote(server), asked, tag, tuple(region or ()), digest, SystemClock())
    left = asyncio.run(waiting.until(timeout))
    for line in left:
        print(f"regmesh: {line}", file=sys.stderr)
    if left:
        raise typer.Exit(1)


def _check(digest: str) -> None:
    try:
        Digest(digest)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@dataclass(slots=True)
class Waiting:
    remote: Remote
    image: image_argument.ImageArgument
    tag: str
    regions: Sequence[str]
    digest: str | None
    clock: Clock
    _said: str = ""

    async def until(self, timeout: float) -> list[str]:
        """Empty when all of it has come; else, when time is up, what is missing and why."""
        deadline = self.clock.monotonic() + timeout
        item = await self._look()
        while True:
            missing = self._missing(item)
            is_over = not missing or self.clock.monotonic() >= deadline
            self._tell(len(self._rows(item)), missing, is_over=is_over)
            if not missing:
                return []
            if is_over:
                return await self._reasons(item, missing)
            await self.clock.sleep(min(_LOOK_EVERY, max(0.0, deadline - self.clock.monotonic())))
            try:
                item = await self._look()
            except Unanswered:
                if self.clock.monotonic() >= deadline:
                    raise  # it answered before, so it may be starting again

    async def _look(self) -> Mapping[str, Any]:
        answer = await self.remote.ask("GET", self.image.path("images"), query={"tag": self.tag})
        item: Mapping[str, Any] = answer["items"][0]
        if nowhere := arrival.without_place(item, self.regions):
            raise typer.BadParameter(
                f"no place in {', '.join(nowhere)} is to hold it; `regmesh where` shows them"
            )
        if not self._rows(item):
            raise typer.BadParameter("no replica and no rule brings it anywhere; `regmesh explain` says why")
        return item

    def _rows(self, item: Mapping[str, Any]) -> list[arrival.Row]:
        return arrival.waited_for(item, self.image.instance, self.regions)

    def _missing(self, item: Mapping[str, Any]) -> list[arrival.Row]:
        wanted = self.digest or item["digest"]
        return [row for row in self._rows(item) if not arrival.has_come(row, self.image.instance, wanted)]

    async def _reasons(self, item: Mapping[str, Any], missing: Sequence[arrival.Row]) -> list[str]:
        agents = (await self.remote.ask("GET", "/api/v1/agents"))["items"]
        query = {"repository": self.image.repository, "tag": self.tag, "limit": _ENDS}
        ends = (await self.remote.ask("GET", "/api/v1/logs", query=query))["items"]
        wanted = self.digest or item["digest"]
        return [
            f"{row['region']}: {row['place']} does not have it: {arrival.why_not(row, wanted, agents, ends)}"
            for row in missing
        ]

    def _tell(self, total: int, missing: Sequence[arrival.Row], *, is_over: bool) -> None:
        """On a terminal, over the last line."""
        if not sys.stderr.isatty():
            return
        places = ", ".join(f"{row['place']} {row['state']}" for row in missing)
        line = f"{total - len(missing)} of {total} places have it" + (
            f"; waiting for {places}" if places else ""
        )
        if line != self._said:
            over_the_last_line(line)
            self._said = line
        if is_over:
            print(file=sys.stderr)
