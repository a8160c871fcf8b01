"""What every part of control gets from the composition root."""

from dataclasses import dataclass

from mesh.clock import Clock
from mesh.log.port import Log
from mesh.metrics import Metrics
from mesh.retry import Random, RetryLoop
from mesh.rules.state import MeshState


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPorts:
    """The log, the declared state, time, randomness and metrics."""

    log: Log
    state: MeshState
    clock: Clock
    metrics: Metrics
    random: Random

    def retry_loop(self, step: str) -> RetryLoop:
        """Returns a new retry loop for one step; it logs its waits as `<step>_waits`."""
        return RetryLoop(step, self.clock, self.random)
