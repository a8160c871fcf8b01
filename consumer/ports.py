"""What one agent works with: its identity, and the ports that a composition root gives it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from consumer.places import Places
from mesh.clock import Clock
from mesh.log.port import Log, Record
from mesh.log.table import Table
from mesh.metrics import Metrics
from mesh.retry import Random
from mesh.rules.state import MeshState
from schemas.names import Region


@dataclass(frozen=True, slots=True)
class AgentPorts:
    """The identity and the ports of one agent."""

    agent: str  # its name, unique in the mesh
    region: Region
    log: Log
    state: MeshState
    rules: Table  # of `mesh.state`; fills `state`
    places: Places
    clock: Clock
    metrics: Metrics
    random: Random

    def table(
        self,
        topic: str,
        apply: Callable[[Record], None],
        unreadable: Callable[[Record, str], Awaitable[None]],
    ) -> Table:
        """Returns a table over a compacted topic; the caller runs it."""
        return Table(self.log, topic, apply, unreadable=unreadable, clock=self.clock, random=self.random)
