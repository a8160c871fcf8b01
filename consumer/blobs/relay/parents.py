"""Which relays send a blob to this region: those of its parent in the relay tree of the live regions."""

from collections.abc import Callable
from dataclasses import dataclass

from consumer.blobs.relay.incoming import Incoming
from consumer.blobs.relay.peers import Peers
from consumer.blobs.relay.tree import Cost, parent_of
from consumer.task import Task
from mesh.rules.state import MeshState
from schemas.names import Digest, Region


@dataclass(frozen=True, slots=True)
class RelayParents:
    """Finds the relays of one region's parent. `is_enabled` returns whether this agent has keys of relays."""

    region: Region
    state: MeshState
    peers: Peers
    incoming: Incoming
    cost: Cost
    is_enabled: Callable[[], bool]

    def find(self, task: Task, digest: Digest) -> tuple[Region, list[str]] | None:
        """Returns the parent region of a blob and its relays' URLs, or None when the blob comes from the source."""
        if not (task.destination.is_replica and self.is_enabled()):
            return None
        parent = self._parent(task, digest)
        return None if parent is None else (parent, self.peers.relays(parent, digest))

    def _parent(self, task: Task, digest: Digest) -> Region | None:
        mirrored = {it.region for it in self.state.replicas() if it.instance == task.source.instance}
        live = (set(self.peers.live_regions()) | {self.region}) & mirrored
        relays = {region for region in live if self._is_relay(region, digest)}
        return parent_of(self.region, digest, task.source.region, relays, live - relays, self.cost)

    def _is_relay(self, region: Region, digest: Digest) -> bool:
        if region == self.region:
            return self.incoming.is_relay()
        return bool(self.peers.relays(region, digest))
