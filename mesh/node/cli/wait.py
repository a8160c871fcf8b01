"""`regmesh wait`: block until an image has arrived."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import typer

from mesh.clock import Clock, SystemClock
from mesh.node.cli import arrival
from mesh.node.cli.control_client import ApiUnreachable, ControlClient
from mesh.node.cli.images import ImageArgument, parse_tagged_image
from mesh.node.cli.options import DEFAULT_SERVER, Server, argument, option
from mesh.node.cli.output import Item, ProgressLine
from schemas.names import Digest

_POLL_SECONDS = 0.5
_LOG_ENTRIES = "200"  # of the sync log, in which the reason for a missing image is looked up


def wait(
    image: Annotated[str, argument("INSTANCE/REPOSITORY:TAG", metavar="IMAGE")],
    region: Annotated[
        list[str] | None, option("Wait for this region; repeat for more. Without it, for all places.")
    ] = None,
    digest: Annotated[
        str | None, option("Wait for this digest instead of the one that the instance's tag names.")
    ] = None,
    timeout: Annotated[float, option("Give up after this many seconds.", min=0, show_default=True)] = 300,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Wait until an image has arrived at its destinations.

    It has arrived when an agent has read the digest from the registry there. Right after a push give the --digest: what
    the tag names is known only once the registry has sent its notification.

    Exits with 0 when the image has arrived everywhere, with 1 after --timeout, with a line for each place that does not
    have it, and with 2 when a region has no place for it. Example: regmesh wait game-cn/game/server:v1.0 --region
    shanghai --digest sha256:...
    """
    parsed, tag = parse_tagged_image(image)
    if digest is not None:
        _check(digest)
    waiter = ArrivalWaiter(
        ControlClient(server), parsed, tag, tuple(region or ()), digest, SystemClock(), ProgressLine(quiet=True)
    )  # fmt: skip
    missing = asyncio.run(waiter.wait(timeout))
    for line in missing:
        print(f"regmesh: {line}", file=sys.stderr)
    if missing:
        raise typer.Exit(1)


def _check(digest: str) -> None:
    try:
        Digest(digest)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@dataclass(slots=True)
class ArrivalWaiter:
    """Polls control until an image has arrived in regions, or at all its places where `regions` is empty."""

    control: ControlClient
    image: ImageArgument
    tag: str
    regions: Sequence[str]
    digest: str | None
    clock: Clock
    progress: ProgressLine = field(default_factory=lambda: ProgressLine(quiet=True))

    async def wait(self, timeout: float) -> list[str]:
        """Returns nothing when all have it, or after `timeout` seconds a line for each place that has not.

        Raises:
            typer.BadParameter: A region, or the whole mesh, has no place for the image.
            ApiError: Control does not know the instance.
            ApiUnreachable: Control does not answer at the first or at the last poll.
        """
        deadline = self.clock.monotonic() + timeout
        item = await self._poll()
        while True:
            missing = self._missing(item)
            is_over = not missing or self.clock.monotonic() >= deadline
            self._show(len(self._places(item)), missing)
            if is_over:
                self.progress.end()
                return await self._reasons(item, missing) if missing else []
            await self.clock.sleep(min(_POLL_SECONDS, max(0.0, deadline - self.clock.monotonic())))
            try:
                item = await self._poll()
            except ApiUnreachable:
                if self.clock.monotonic() >= deadline:
                    raise  # until then control may be restarting

    async def _poll(self) -> Item:
        answer = await self.control.request("GET", self.image.path("images"), query={"tag": self.tag})
        item: Item = answer["items"][0]
        if without := arrival.regions_without_place(item, self.regions):
            raise typer.BadParameter(
                f"no place in {', '.join(without)} should hold the image; `regmesh where` shows the places"
            )
        if not self._places(item):
            raise typer.BadParameter("no replica and no rule copies the image; `regmesh explain` shows why")
        return item

    def _places(self, item: Item) -> list[arrival.Row]:
        return arrival.expected_places(item, self.image.instance, self.regions)

    def _missing(self, item: Item) -> list[arrival.Row]:
        wanted = self.digest or item["digest"]
        return [
            row for row in self._places(item) if not arrival.has_arrived(row, self.image.instance, wanted)
        ]

    async def _reasons(self, item: Item, missing: Sequence[arrival.Row]) -> list[str]:
        agents = (await self.control.request("GET", "/api/v1/agents"))["items"]
        query = {"repository": self.image.repository, "tag": self.tag, "limit": _LOG_ENTRIES}
        entries = (await self.control.request("GET", "/api/v1/logs", query=query))["items"]
        wanted = self.digest or item["digest"]
        return [
            f"{row['region']}: {row['place']} does not have it: "
            + arrival.missing_reason(row, wanted, agents, entries)
            for row in missing
        ]

    def _show(self, total: int, missing: Sequence[arrival.Row]) -> None:
        places = ", ".join(f"{row['place']} {row['state']}" for row in missing)
        waiting = f"; waiting for {places}" if places else ""
        self.progress.show(f"{total - len(missing)} of {total} places have it{waiting}")
