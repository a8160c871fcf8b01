"""Where a blob is read from: who sends it to us, in the order in which they are asked.

1. A place that holds the whole image and is nearer than its origin: another replica, or one of the source's.
2. The relay that the tree names, which is being sent the blob itself.
3. The origin: the task's source. It has the last word, and the first when nothing else is nearer.

Whatever fails, the next one is asked for the rest at once. What came from several is verified as a whole; a peer that
sent something else is not asked again for a while.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import structlog

from consumer.blobs.link_cost import LinkCost
from consumer.blobs.relay.client import NotYet, Peer
from consumer.blobs.relay.incoming import Incoming
from consumer.blobs.relay.peers import Peers
from consumer.blobs.relay.tree import parent_of
from consumer.blobs.relay.waits import PassedOver, Waits
from consumer.blobs.source_stream import DISTRUST_SECONDS, LATE_SECONDS, Holder, SourceStream
from consumer.task import Task
from mesh.clock import Clock
from mesh.errors import RegistryError, RegmeshError
from mesh.metrics import Metrics
from mesh.registry.port import Descriptor, Registry
from mesh.rules import boundary
from mesh.rules.state import MeshState
from schemas.names import Digest, PlaceName, Region
from schemas.topology import Place

LOG = structlog.get_logger()

_ASK_AGAIN_SECONDS = 0.05
_MOST_NEAR = 2  # places that are asked whether they hold an image


@dataclass(frozen=True, slots=True)
class ImageSources:
    """How the blobs of one image come, as far as that is found out once for all of them."""

    near: Sequence[Place] = ()  # places nearer than the source that hold the image, nearest first
    waits: Waits = field(default_factory=Waits)


class BlobSources:
    """Of one agent."""

    def __init__(
        self,
        *,
        region: Region,
        state: MeshState,
        registry: Callable[[Place], Registry],
        peers: Peers,
        peer: Peer,
        may_ask: Callable[[], bool],
        incoming: Incoming,
        nearness: LinkCost,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._region, self._state, self._registry = region, state, registry
        self._peers, self._peer, self._may_ask = peers, peer, may_ask
        self._incoming, self._nearness = incoming, nearness
        self._clock, self._metrics = clock, metrics
        self._passed_over = PassedOver()

    async def ways(self, task: Task, digest: Digest | None) -> ImageSources:
        """Asked once for all blobs of an image; `digest` is the image's, None when there is none yet."""
        if digest is None:
            return ImageSources()
        found = []
        for place in self._nearer(task)[:_MOST_NEAR]:
            try:
                if await self._registry(place).resolve(task.repository, digest) is not None:
                    found.append(place)
            except RegmeshError as error:
                LOG.info(
                    "a near place was passed over", action="near_failed", place=place.name, error=str(error)
                )
        return ImageSources(found)

    def supply(self, blob: Descriptor, task: Task, source: Registry, ways: ImageSources) -> SourceStream:
        """The blob as a stream, to be opened."""
        found = [*(self._of_place(place, blob, task) for place in ways.near), *self._relays(blob, task)]
        return SourceStream(blob, task, [it for it in found if self.trusts(it)], source, self, ways.waits)

    def from_origin(self, blob: Descriptor, task: Task, source: Registry) -> SourceStream:
        """From the source alone."""
        return SourceStream(blob, task, (), source, self, Waits())

    def drop(self, name: str, why: RegmeshError, seconds: float = DISTRUST_SECONDS) -> None:
        """Not to be asked for a while."""
        self._passed_over.add(name, self._clock.monotonic() + seconds)
        self._metrics.sources_dropped.labels(why.code).inc()
        LOG.warning("a holder of blobs is dropped", action="source_dropped", source=name, error=str(why))

    def trusts(self, holder: Holder) -> bool:
        now = self._clock.monotonic()
        return not (self._passed_over.has(holder.key, now) or self._passed_over.has(holder.address, now))

    async def wait_for(
        self, holder: Holder, task: Task, blob: Descriptor, stack: AsyncExitStack, waits: Waits
    ) -> AsyncIterator[bytes]:
        """The bytes of a relay, which may have to be sent them first itself.

        Raises its answer as soon as it was waited for in vain, by this blob or by another one.
        """
        began = self._clock.monotonic()
        with self._incoming.asking((task.destination.name, blob.digest), holder.region):
            while True:
                try:
                    chunks = await stack.enter_async_context(holder.read(0))
                except RegistryError as error:
                    if error.status not in (202, 404) or not self.trusts(holder):
                        waits.ended(holder.key)
                        raise
                    now, is_expected = self._clock.monotonic(), isinstance(error, NotYet)
                    if waits.is_vain(holder.key, began, now, is_expected=is_expected):
                        self.drop(holder.key, error, LATE_SECONDS)
                        raise
                    await self._clock.sleep(_ASK_AGAIN_SECONDS)
                else:
                    waits.ended(holder.key)
                    return chunks

    def _nearer(self, task: Task) -> list[Place]:
        """Other places of the task's source that cost clearly less than it, cheapest first."""
        nearer = [
            place
            for place in self._state.places()
            if place.instance == task.source.instance
            and place.name not in (task.source.name, task.destination.name)
            and boundary.crossing(self._state, task.source.region, place.region) is None
            and self._nearness.is_nearer(place, task.source)
        ]
        return sorted(nearer, key=lambda place: (self._nearness.cost(place), place.name))

    def _of_place(self, place: Place, blob: Descriptor, task: Task) -> Holder:
        registry = self._registry(place)
        return Holder(
            place.name,
            place.name,
            place.name,
            place.region,
            lambda offset: registry.read_blob(task.repository, blob, offset=offset),
        )

    def _relays(self, blob: Descriptor, task: Task) -> list[Holder]:
        if not (task.destination.is_replica and self._may_ask()):
            return []
        if (parent := self._parent(task, blob.digest)) is None:
            return []
        place = PlaceName(f"{task.source.instance}@{parent}")

        def holder(url: str) -> Holder:
            return Holder(
                f"{place} at {url}",
                url,
                place,
                parent,
                lambda offset: self._peer.read(url, place, task.repository, blob, offset),
                is_relay=True,
            )

        return [holder(url) for url in self._peers.relays(parent, blob.digest)]

    def _parent(self, task: Task, digest: Digest) -> Region | None:
        mirrored = {it.region for it in self._state.replicas() if it.instance == task.source.instance}
        awake = (set(self._peers.awake()) | {self._region}) & mirrored
        relays = {region for region in awake if self._is_relay(region, digest)}
        return parent_of(
            self._region, digest, task.source.region, relays, awake - relays, self._nearness.declared_cost
        )

    def _is_relay(self, region: Region, digest: Digest) -> bool:
        if region == self._region:
            return self._incoming.is_relay()
        return bool(self._peers.relays(region, digest))
