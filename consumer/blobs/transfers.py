"""All that brings blobs to the places of one agent: the copier with its sources, the relay, and layers ahead."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass

from consumer.blobs.blob_source import BlobSources
from consumer.blobs.copy_blobs import BlobCopier
from consumer.blobs.link_cost import LinkCost
from consumer.blobs.prefetch import Prefetch
from consumer.blobs.prefetched import PrefetchedBlobs
from consumer.blobs.relay.client import PeerClient
from consumer.blobs.relay.incoming import Incoming
from consumer.blobs.relay.peers import Peers
from consumer.blobs.relay.serve import Relay
from consumer.blobs.throttle import Speeds
from consumer.places import Places
from mesh.clock import Clock
from mesh.log.port import Log, Record
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from schemas.completions import Side
from schemas.names import Region


@dataclass(frozen=True, slots=True)
class RelayAccess:
    """How this agent is reached by others, and what they and it prove themselves by; asked anew each time."""

    url: Callable[[], str | None] = lambda: None  # None = it is a leaf
    secret: Callable[[], str | None] = lambda: None


NO_RELAY = RelayAccess()


@dataclass(frozen=True, slots=True)
class TransferLimits:
    blobs_per_task: int = 4
    transfers: int = 16  # blobs on their way at once: what bounds memory
    ahead: int = 4  # of these, that no manifest has named yet
    prefetch_bytes: int = 10 * 1024**3  # that came ahead to the region and were not named yet; 0 = none comes


class Transfers:
    """Made once for an agent; `agents_here` tells how many live in its region, itself one of them."""

    def __init__(
        self,
        *,
        region: Region,
        log: Log,
        state: MeshState,
        places: Places,
        access: RelayAccess,
        limits: TransferLimits,
        agents_here: Callable[[], int],
        unreadable: Callable[[Record, str], Awaitable[None]],
        clock: Clock,
        metrics: Metrics,
        random: Callable[[], float],
    ) -> None:
        incoming = Incoming(lambda: access.url() is not None)
        self._peer = PeerClient(region, access.secret)
        self._peers = Peers(
            region=region, log=log, state=state, unreadable=unreadable, clock=clock, metrics=metrics,
            random=random,
        )  # fmt: skip
        sources = BlobSources(
            region=region, state=state, registry=lambda place: places.registry(place, Side.SOURCE),
            peers=self._peers, peer=self._peer, may_ask=lambda: access.secret() is not None,
            incoming=incoming,
            nearness=LinkCost(region, state, places.answered_in), clock=clock, metrics=metrics,
        )  # fmt: skip
        brought = PrefetchedBlobs(limits.prefetch_bytes, agents_here)
        self.copier = BlobCopier(
            sources=sources, incoming=incoming, brought=brought, others_here=lambda: agents_here() > 1, metrics=metrics,
            speeds=Speeds(state=state, clock=clock, metrics=metrics, transfers=limits.transfers),
            blobs_per_task=limits.blobs_per_task, transfers=limits.transfers,
        )  # fmt: skip
        self.ahead = Prefetch(
            copier=self.copier,
            brought=brought,
            places=places,
            state=state,
            at_once=limits.ahead,
            clock=clock,
            metrics=metrics,
        )
        self.relay = Relay(
            region=region, incoming=incoming, places=places, state=state, secret=access.secret, clock=clock,
            metrics=metrics,
        )  # fmt: skip

    def beside(self) -> list[Coroutine[None, None, None]]:
        """What runs for as long as the agent does."""
        return [self._peers.run(), self.ahead.run()]

    async def close(self) -> None:
        await self._peer.close()
