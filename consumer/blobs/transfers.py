"""Composes what transfers blobs to the places of one agent: the copier, its sources, the relay and the prefetcher."""

from collections.abc import Awaitable, Callable, Coroutine

from consumer.blobs.blob_source import BlobSources, RelayWaiter
from consumer.blobs.copy_blobs import BlobCopier, TransferPermits, TransferPorts
from consumer.blobs.holder_health import HolderHealth
from consumer.blobs.link_cost import LinkCost
from consumer.blobs.prefetch import Prefetcher
from consumer.blobs.prefetch_ledger import PrefetchLedger
from consumer.blobs.relay.access import RelayAccess
from consumer.blobs.relay.client import PeerClient
from consumer.blobs.relay.incoming import Incoming
from consumer.blobs.relay.parents import RelayParents
from consumer.blobs.relay.peers import Peers
from consumer.blobs.relay.serve import Relay
from consumer.blobs.throttle import Throttle
from consumer.ports import AgentPorts
from consumer.settings import TransferLimits
from mesh.log.port import Record
from schemas.completions import Side


class Transfers:
    """The transfers of one agent. `agents_here` returns how many agents run in its region, itself included."""

    def __init__(
        self,
        ports: AgentPorts,
        limits: TransferLimits,
        access: RelayAccess,
        *,
        agents_here: Callable[[], int],
        unreadable: Callable[[Record, str], Awaitable[None]],
    ) -> None:
        state, clock, metrics = ports.state, ports.clock, ports.metrics
        incoming = Incoming(lambda: access.url() is not None, access.tees)
        ledger = PrefetchLedger(limits.prefetch_bytes, agents_here)
        self._peer, self._peers = PeerClient(ports.region, access.keys, clock), Peers(ports, unreadable)
        transfer_ports = TransferPorts(
            sources=self._sources(ports, access, incoming), incoming=incoming, ledger=ledger, metrics=metrics,
            throttle=Throttle(state=state, clock=clock, metrics=metrics, transfers=limits.transfers),
            permits=TransferPermits(limits.transfers), has_other_agents=lambda: agents_here() > 1,
        )  # fmt: skip
        self.copier = BlobCopier(transfer_ports, blobs_per_task=limits.blobs_per_task)
        self.prefetcher = Prefetcher(ports, copier=self.copier, ledger=ledger, concurrency=limits.prefetches)
        self.relay = Relay(ports, incoming, access)

    def _sources(self, ports: AgentPorts, access: RelayAccess, incoming: Incoming) -> BlobSources:
        link_cost = LinkCost(ports.region, ports.state, ports.places.answered_in)
        parents = RelayParents(
            ports.region, ports.state, self._peers, incoming, link_cost.declared_cost,
            is_enabled=lambda: access.keys() is not None,
        )  # fmt: skip
        return BlobSources(
            state=ports.state, registry=lambda place: ports.places.registry(place, Side.SOURCE), link_cost=link_cost,
            parents=parents, peer=self._peer,
            waiter=RelayWaiter(HolderHealth(ports.clock, ports.metrics), incoming, ports.clock),
        )  # fmt: skip

    def background(self) -> list[Coroutine[None, None, None]]:
        """Returns what runs for as long as the agent does."""
        return [self._peers.run(), self.prefetcher.run()]

    async def close(self) -> None:
        """Closes the connections to other agents."""
        await self._peer.close()
