"""What each region has, asked of its registry as a client there would ask, while it comes."""

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

_LOOK_EVERY = 0.25  # seconds
_CLOCK = SystemClock()


@dataclass(slots=True)
class Place:
    """Seconds are since the push began."""

    registry: RegistryClient
    layers: int = 0
    first_layer: float | None = None
    pullable: dict[str, float] = field(default_factory=dict)  # by tag


@dataclass(slots=True)
class Seen:
    image: Image
    places: dict[str, Place]
    began: float = field(default_factory=_CLOCK.monotonic)

    @property
    def now(self) -> float:
        return _CLOCK.monotonic() - self.began

    async def look(self) -> None:
        await asyncio.gather(*(self._look_at(name) for name in self.places))

    async def everywhere(self, images: Sequence[Image]) -> None:
        """Return when each place has all that is meant for it."""
        while not await self._are_everywhere(images):
            await _CLOCK.sleep(_LOOK_EVERY)

    async def _are_everywhere(self, images: Sequence[Image]) -> bool:
        for name, place in self.places.items():
            for image, tag in meant_for(name, images):
                found = await place.registry.resolve(image.repository, Tag(tag))
                if found is None or found.digest != image.manifest.digest:
                    return False
        return all(place.pullable for place in self.places.values())

    async def _look_at(self, name: str) -> None:
        place, image = self.places[name], self.image
        if place.layers < len(image.blobs):
            sizes = [await place.registry.blob_size(image.repository, blob.digest) for blob in image.blobs]
            place.layers = sum(found is not None for found in sizes)
        if place.layers and place.first_layer is None:
            place.first_layer = self.now
        for _, tag in meant_for(name, [image]):
            if (
                tag not in place.pullable
                and await place.registry.resolve(image.repository, Tag(tag)) is not None
            ):
                place.pullable[tag] = self.now


def meant_for(place: str, images: Sequence[Image]) -> list[tuple[Image, str]]:
    """What belongs at a place: all of it on the mainland, outside only what was released there."""
    inside = place.startswith(topology.CN)
    found = [(images[0], topology.GLOBAL_TAG)]
    return found + [(image, topology.MAINLAND_TAG) for image in images if inside]


@asynccontextmanager
async def watch(stage: Stage, image: Image, console: Console) -> AsyncIterator[Seen]:
    """Look, and show what is seen: a table that lives on a terminal, a line for each arrival elsewhere."""
    async with AsyncExitStack() as stack:
        places = {
            name: Place(await stack.enter_async_context(stage.client(name))) for name in stage.registries
        }
        seen = Seen(image, places)
        live = stack.enter_context(
            Live(_table(seen), console=console, auto_refresh=False, transient=not console.is_terminal)
        )
        looking = asyncio.create_task(_look(seen, live, console))
        try:
            yield seen
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
            live.update(_table(seen), refresh=True)


async def _look(seen: Seen, live: Live, console: Console) -> None:
    told: set[str] = set()
    while True:
        await seen.look()
        if console.is_terminal:
            live.update(_table(seen), refresh=True)
        for name, place in seen.places.items():
            if not console.is_terminal and place.pullable and name not in told and name != topology.CN:
                told.add(name)
                console.print(
                    f"  {seen.now:5.1f} s  {name} has it; its first layer came at {place.first_layer:.1f} s"
                )
        await asyncio.sleep(_LOOK_EVERY)


def _table(seen: Seen) -> Table:
    """Within 80 columns: what wraps on a terminal is no table any more."""
    title = f"{seen.image.repository}, {seen.now:.0f} s: blobs that came, and when a tag was pullable"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for column in ("PLACE", "BLOBS", "", "FIRST AT", *topology.BOTH_TAGS):
        table.add_column(column)
    for name, place in seen.places.items():
        bar = "#" * place.layers + "." * (len(seen.image.blobs) - place.layers)
        times = [place.first_layer, *(place.pullable.get(tag) for tag in topology.BOTH_TAGS)]
        told = ["" if time is None else f"{time:.1f} s" for time in times]
        table.add_row(name, bar, f"{place.layers}/{len(seen.image.blobs)}", *told)
    return table
