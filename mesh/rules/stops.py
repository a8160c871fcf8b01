"""Which executions were stopped, as this node has read it from `mesh.commands`."""

from schemas import codec
from schemas.executions import ExecutionStop


class Stops:
    """The ids of stopped executions, fed by a table of `mesh.commands`; that topic's retention bounds it."""

    def __init__(self) -> None:
        self._stopped: set[str] = set()

    def __contains__(self, execution_id: str) -> bool:
        return execution_id in self._stopped

    def apply(self, value: bytes | None) -> None:
        """Applies one record of the topic.

        Raises:
            DecodeError: The record claims to be a stop and cannot be read.
        """
        raw = value or b""
        if codec.kind_of(raw) == ExecutionStop.kind:
            self._stopped.add(codec.decode(raw, ExecutionStop).execution_id)
