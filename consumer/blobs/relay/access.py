"""How one agent takes part in relaying: the address that it announces, its keys, and the memory of what it sends on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakSet

from consumer.blobs.relay.signing import RelayKeys
from consumer.blobs.relay.tee import Tee


@dataclass(frozen=True, slots=True)
class RelayAccess:
    """This agent's relay address and the keys of relays. Both are called each time, as they may change.

    `tees` are those of the agents that share the memory of one process.
    """

    url: Callable[[], str | None] = lambda: None  # None: the agent is a leaf of the relay tree
    keys: Callable[[], RelayKeys | None] = lambda: None
    tees: WeakSet[Tee] = field(default_factory=WeakSet)


NO_RELAY = RelayAccess()
