"""Composes what transfers blobs to the places of one agent: the copier, its sources, the relay and the prefetcher."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass

from consumer.blobs.blob_source import BlobSources, RelayWaiter
from consumer.blobs.copy_blobs import BlobCopier, TransferPermits, TransferPorts
from consumer.blobs.holder_health import HolderHealth
from consumer.blobs.link_cost import LinkCost
from consumer.blobs.prefetch import Prefetcher
from consumer.blobs.prefetch_ledger import PrefetchLedger
from consumer.blobs.relay.client import PeerClient
from consumer.blobs.relay.incoming import Incoming
from consumer.blobs.relay.parents import RelayParents
from consumer.blobs.relay.peers import Peers
from consumer.blobs.relay.serve import Relay
from consumer.blobs.throttle import Throttle
from consumer.places import Places
from consumer.settings import TransferLimits
from mesh.clock import Clock
from mesh.log.port import Log, Record
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from schemas.completions import Side
from schemas.names import Region


@dataclass(frozen=True, slots=True)
class RelayAccess:
    """This agent's relay address and the mesh's relay secret. Both are called each time, as they may change."""

    url: Callable[[], str | None] = lambda: None  # None: the agent is a leaf of the relay tree
    secret: Callable[[], str | None] = lambda: None


NO_RELAY = RelayAccess()


class Transfers:
    """The transfers of one agent. `agents_here` returns how many agents run in its region, itself included."""

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
        link_cost = LinkCost(region, state, places.answered_in)
        sources = BlobSources(
            state=state, registry=lambda place: places.registry(place, Side.SOURCE), link_cost=link_cost,
            parents=RelayParents(
                region, state, self._peers, incoming, link_cost.declared_cost, lambda: access.secret() is not None
            ),
            peer=self._peer, waiter=RelayWaiter(HolderHealth(clock, metrics), incoming, clock),
        )  # fmt: skip
        ledger = PrefetchLedger(limits.prefetch_bytes, agents_here)
        ports = TransferPorts(
            sources=sources, incoming=incoming, ledger=ledger, metrics=metrics,
            throttle=Throttle(state=state, clock=clock, metrics=metrics, transfers=limits.transfers),
            permits=TransferPermits(limits.transfers), has_other_agents=lambda: agents_here() > 1,
        )  # fmt: skip
        self.copier = BlobCopier(ports, blobs_per_task=limits.blobs_per_task)
        self.prefetcher = Prefetcher(
            copier=self.copier, ledger=ledger, places=places, state=state, concurrency=limits.prefetches,
            clock=clock, metrics=metrics,
        )  # fmt: skip
        self.relay = Relay(
            region=region, incoming=incoming, places=places, state=state, secret=access.secret, clock=clock,
            metrics=metrics,
        )  # fmt: skip

    def background(self) -> list[Coroutine[None, None, None]]:
        """Returns what runs for as long as the agent does."""
        return [self._peers.run(), self.prefetcher.run()]

    async def close(self) -> None:
        """Closes the connections to other agents."""
        await self._peer.close()
