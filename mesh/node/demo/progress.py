"""What each registry has of an image while it is copied, read from the registries as clients would."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table

from mesh.clock import SystemClock
from mesh.node.demo import topology
from mesh.node.demo.release import Image
from mesh.node.demo.stage import Stage
from mesh.registry.client import RegistryClient
from schemas.names import Tag

_POLL_SECONDS = 0.25
_CLOCK = SystemClock()


@dataclass(slots=True)
class Place:
    """What a place has; times are in seconds since the push started."""

    registry: RegistryClient
    layers: int = 0
    first_layer: float | None = None
    pullable: dict[str, float] = field(default_factory=dict)  # by tag


@dataclass(slots=True)
class Progress:
    """What every place has of one image."""

    image: Image
    places: dict[str, Place]
    start: float = field(default_factory=_CLOCK.monotonic)

    @property
    def now(self) -> float:
        """Seconds since the push started."""
        return _CLOCK.monotonic() - self.start

    async def update(self) -> None:
        """Reads from every registry what it has now."""
        await asyncio.gather(*(self._update(name) for name in self.places))

    async def wait_until_everywhere(self, images: Sequence[Image]) -> None:
        """Returns when each place has all tags that belong there."""
        while not await self._are_everywhere(images):
            await _CLOCK.sleep(_POLL_SECONDS)

    async def _are_everywhere(self, images: Sequence[Image]) -> bool:
        for name, place in self.places.items():
            for image, tag in expected(name, images):
                found = await place.registry.resolve(image.repository, Tag(tag))
                if found is None or found.digest != image.manifest.digest:
                    return False
        return all(place.pullable for place in self.places.values())

    async def _update(self, name: str) -> None:
        place, image = self.places[name], self.image
        if place.layers < len(image.blobs):
            sizes = [await place.registry.blob_size(image.repository, blob.digest) for blob in image.blobs]
            place.layers = sum(found is not None for found in sizes)
        if place.layers and place.first_layer is None:
            place.first_layer = self.now
        for _, tag in expected(name, [image]):
            if (
                tag not in place.pullable
                and await place.registry.resolve(image.repository, Tag(tag)) is not None
            ):
                place.pullable[tag] = self.now


def expected(place: str, images: Sequence[Image]) -> list[tuple[Image, str]]:
    """Returns the images and tags that belong at a place: on the mainland all, outside only what was released there."""
    inside = place.startswith(topology.CN)
    found = [(images[0], topology.GLOBAL_TAG)]
    return found + [(image, topology.MAINLAND_TAG) for image in images if inside]


@asynccontextmanager
async def watch(stage: Stage, image: Image, console: Console) -> AsyncIterator[Progress]:
    """Shows progress until the block ends: a live table on a terminal, elsewhere a line for each arrival."""
    async with AsyncExitStack() as stack:
        places = {
            name: Place(await stack.enter_async_context(stage.client(name))) for name in stage.registries
        }
        seen = Progress(image, places)
        live = stack.enter_context(
            Live(_table(seen), console=console, auto_refresh=False, transient=not console.is_terminal)
        )
        polling = asyncio.create_task(_poll(seen, live, console))
        try:
            yield seen
        finally:
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
            live.update(_table(seen), refresh=True)


async def _poll(seen: Progress, live: Live, console: Console) -> None:
    reported: set[str] = set()
    while True:
        await seen.update()
        if console.is_terminal:
            live.update(_table(seen), refresh=True)
        for name, place in seen.places.items():
            if not console.is_terminal and place.pullable and name not in reported and name != topology.CN:
                reported.add(name)
                console.print(
                    f"  {seen.now:5.1f} s  {name} has it; its first layer arrived after {place.first_layer:.1f} s"
                )
        await asyncio.sleep(_POLL_SECONDS)


def _table(seen: Progress) -> Table:
    """Returns a table that fits into 80 columns."""
    title = f"{seen.image.repository}, {seen.now:.0f} s: blobs that arrived, and when tags were pullable"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for column in ("PLACE", "BLOBS", "", "FIRST AT", *topology.BOTH_TAGS):
        table.add_column(column)
    for name, place in seen.places.items():
        bar = "#" * place.layers + "." * (len(seen.image.blobs) - place.layers)
        times = [place.first_layer, *(place.pullable.get(tag) for tag in topology.BOTH_TAGS)]
        shown = ["" if time is None else f"{time:.1f} s" for time in times]
        table.add_row(name, bar, f"{place.layers}/{len(seen.image.blobs)}", *shown)
    return table
