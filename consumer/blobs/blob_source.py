"""Where a blob is read from: the holders that may send it, and one stream that reads from them in this order.

1. A place that holds the whole image and is nearer than its source: another replica, or the instance itself.
2. The relay that the relay tree names, which receives the blob itself.
3. The origin, which is the task's source. It is the first when nothing else is nearer.

When a holder fails, the next one is asked at once for the rest. A blob that came from several holders is verified as a
whole; a peer that sent wrong bytes is not asked again for a while.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Self

import structlog

from consumer.blobs.holder_health import LATE_SECONDS, Holder, HolderHealth
from consumer.blobs.link_cost import LinkCost
from consumer.blobs.relay.client import NotYet, Peer
from consumer.blobs.relay.incoming import Incoming
from consumer.blobs.relay.parents import RelayParents
from consumer.blobs.relay.waits import RelayWaits
from consumer.task import Task
from mesh.clock import Clock
from mesh.errors import ContentMismatch, RegistryError, RegmeshError
from mesh.registry.port import Descriptor, Registry
from mesh.registry.verify import Verifier
from mesh.rules import boundary
from mesh.rules.state import MeshState
from schemas.completions import Side
from schemas.names import Digest, PlaceName
from schemas.topology import Place

LOG = structlog.get_logger()

_POLL_SECONDS = 0.05  # between two requests to a relay that does not have the blob yet
_MOST_NEARBY = 2  # places that are asked whether they hold an image


@dataclass(frozen=True, slots=True)
class ImageSources:
    """What all blobs of one image share: the nearby places that hold it, nearest first, and its waits for relays."""

    nearby_places: Sequence[Place] = ()
    waits: RelayWaits = field(default_factory=RelayWaits)


@dataclass(frozen=True, slots=True)
class RelayWaiter:
    """Opens a blob at a relay that may have to receive it first."""

    health: HolderHealth
    incoming: Incoming
    clock: Clock

    async def open(
        self, holder: Holder, task: Task, blob: Descriptor, waits: RelayWaits, stack: AsyncExitStack
    ) -> AsyncIterator[bytes]:
        """Returns the relay's stream, entered on `stack`.

        Raises:
            RegistryError: The relay refuses, or this blob or another one of the image waited in vain.
        """
        started = self.clock.monotonic()
        with self.incoming.waiting_for((task.destination.name, blob.digest), holder.region):
            while True:
                try:
                    chunks = await stack.enter_async_context(holder.read(0))
                except RegistryError as error:
                    if error.status not in (202, 404) or not self.health.is_trusted(holder):
                        waits.end(holder.key)
                        raise
                    now, is_expected = self.clock.monotonic(), isinstance(error, NotYet)
                    if waits.is_vain(holder.key, started, now, is_expected=is_expected):
                        self.health.drop(holder.key, error, LATE_SECONDS)
                        raise
                    await self.clock.sleep(_POLL_SECONDS)
                else:
                    waits.end(holder.key)
                    return chunks


class BlobSources:
    """Finds the holders of blobs for all tasks of one agent."""

    def __init__(
        self,
        *,
        state: MeshState,
        registry: Callable[[Place], Registry],
        link_cost: LinkCost,
        parents: RelayParents,
        peer: Peer,
        waiter: RelayWaiter,
    ) -> None:
        self._state, self._registry, self._link_cost = state, registry, link_cost
        self._parents, self._peer, self._waiter = parents, peer, waiter

    async def of_image(self, task: Task, digest: Digest | None) -> ImageSources:
        """Asks the places nearer than the task's source whether they hold its image, once for all its blobs.

        Args:
            digest: The image's digest, or None when there is no image yet.
        """
        if digest is None:
            return ImageSources()
        found = []
        for place in self._nearer_places(task)[:_MOST_NEARBY]:
            try:
                if await self._registry(place).resolve(task.repository, digest) is not None:
                    found.append(place)
            except RegmeshError as error:
                LOG.info(
                    "a nearby place was skipped",
                    action="nearby_place_skipped",
                    place=place.name,
                    error=str(error),
                )
        return ImageSources(found)

    def stream(
        self, blob: Descriptor, task: Task, source: Registry, image_sources: ImageSources
    ) -> "SourceStream":
        """Returns the blob as a stream from all its trusted holders, to be entered and opened."""
        holders = [*(self._place_holder(place, blob, task) for place in image_sources.nearby_places)]
        holders += self._relay_holders(blob, task)
        trusted = [holder for holder in holders if self._waiter.health.is_trusted(holder)]
        return SourceStream(blob, task, trusted, source, self._waiter, image_sources.waits)

    def origin_stream(self, blob: Descriptor, task: Task, source: Registry) -> "SourceStream":
        """Returns the blob as a stream from the task's source only."""
        return SourceStream(blob, task, (), source, self._waiter, RelayWaits())

    def _nearer_places(self, task: Task) -> list[Place]:
        """Returns other places of the source's instance that cost clearly less than the source, cheapest first."""
        nearer = [
            place
            for place in self._state.places()
            if place.instance == task.source.instance
            and place.name not in (task.source.name, task.destination.name)
            and boundary.crossing(self._state, task.source.region, place.region) is None
            and self._link_cost.is_nearer(place, task.source)
        ]
        return sorted(nearer, key=lambda place: (self._link_cost.cost(place), place.name))

    def _place_holder(self, place: Place, blob: Descriptor, task: Task) -> Holder:
        registry = self._registry(place)
        return Holder(
            place.name,
            place.name,
            place.name,
            place.region,
            lambda offset: registry.read_blob(task.repository, blob, offset=offset),
        )

    def _relay_holders(self, blob: Descriptor, task: Task) -> list[Holder]:
        if (found := self._parents.find(task, blob.digest)) is None:
            return []
        region, urls = found
        place = PlaceName(f"{task.source.instance}@{region}")

        def holder(url: str) -> Holder:
            return Holder(
                f"{place} at {url}",
                url,
                place,
                region,
                lambda offset: self._peer.read(url, place, task.repository, blob, offset),
                is_relay=True,
            )

        return [holder(url) for url in urls]


class SourceStream:
    """An async iterator of a blob's chunks, from one holder after the other. Enter it, open it once, and close it.

    Entering waits for a relay if one comes first, and keeps nothing else open, as it may take long until the blob gets
    its permit. `open` asks the remaining holders down to the origin, and does not wait for relays.

    It is not a generator, as an upload reads it in a task of its own and a running generator cannot be closed.
    """

    def __init__(
        self,
        blob: Descriptor,
        task: Task,
        holders: Sequence[Holder],
        origin: Registry,
        waiter: RelayWaiter,
        waits: RelayWaits,
    ) -> None:
        self._blob, self._task, self._origin, self._holders = blob, task, origin, list(holders)
        self._waiter, self._health, self._waits = waiter, waiter.health, waits
        self.is_shared = bool(holders)
        self._verifier = Verifier(blob, Side.SOURCE)
        self._stack = AsyncExitStack()
        self._chunks: AsyncIterator[bytes] | None = None
        self._used: list[str] = []
        self.name, self.region = task.source.name, task.source.region  # of the current sender
        self._is_origin = False

    async def __aenter__(self) -> Self:
        while self._chunks is None and self._holders and self._holders[0].is_relay:
            await self._try_holder(self._holders.pop(0), self._wait_and_open)
        return self

    async def open(self) -> None:
        """Opens the next holder unless a relay is open already.

        Raises:
            RegistryError: The origin refuses, and no other holder has the blob.
        """
        if self._chunks is None:
            await self._next_holder()

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def __aiter__(self) -> "SourceStream":
        return self

    async def __anext__(self) -> bytes:
        while True:
            assert self._chunks is not None
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                if self.is_shared and not self._verifier.complete:
                    await self._next_holder()
                    continue
                if self.is_shared:  # a single registry's stream was verified by the client
                    with self._dropping_liars():
                        self._verifier.check()
                raise
            except RegistryError as error:
                if self._is_origin:
                    raise
                self._health.drop(self._used[-1], error, LATE_SECONDS)
                await self._next_holder()
            else:
                if self.is_shared:
                    with self._dropping_liars():
                        self._verifier.add(chunk)
                return chunk

    async def _next_holder(self) -> None:
        """Opens the first of the remaining holders that works, else the origin, whose error is raised."""
        await self._stack.aclose()
        self._chunks = None
        while self._holders:
            if await self._try_holder(self._holders.pop(0), self._open_now):
                return
        self.name, self.region, self._is_origin = self._task.source.name, self._task.source.region, True
        offset = self._verifier.received if self.is_shared else None
        reading = self._origin.read_blob(self._task.repository, self._blob, offset=offset)
        self._chunks = await self._stack.enter_async_context(reading)

    async def _try_holder(
        self, holder: Holder, opening: Callable[[Holder], Awaitable[AsyncIterator[bytes]]]
    ) -> bool:
        if not self._health.is_trusted(holder):  # dropped since it was found
            return False
        try:
            self._chunks = await opening(holder)
        except RegistryError as error:
            self._health.report_failure(holder, error)
            return False
        self.name, self.region = holder.name, holder.region
        self._used.append(holder.key)
        return True

    async def _wait_and_open(self, holder: Holder) -> AsyncIterator[bytes]:
        return await self._waiter.open(holder, self._task, self._blob, self._waits, self._stack)

    async def _open_now(self, holder: Holder) -> AsyncIterator[bytes]:
        return await self._stack.enter_async_context(holder.read(self._verifier.received))

    @contextmanager
    def _dropping_liars(self) -> Iterator[None]:
        """On wrong bytes drops all holders that sent some, as the one that lied is unknown."""
        try:
            yield
        except ContentMismatch as error:
            for name in self._used:
                self._health.drop(name, error)
            raise
