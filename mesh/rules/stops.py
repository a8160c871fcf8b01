"""Which executions were stopped, as this node has read it from `mesh.commands`."""

from collections.abc import Collection
from itertools import islice

from schemas import codec
from schemas.executions import ExecutionStop


class Stops:
    """The ids of stopped executions, fed by a table of `mesh.commands`; that topic's retention bounds it."""

    def __init__(self) -> None:
        self._stopped: dict[str, None] = {}  # in the order in which they were stopped

    def __contains__(self, execution_id: str) -> bool:
        return execution_id in self._stopped

    def __len__(self) -> int:
        return len(self._stopped)

    def after(self, count: int) -> Collection[str]:
        """Returns those that were stopped after the first `count`."""
        return set(islice(self._stopped, count, None))

    def apply(self, value: bytes | None) -> None:
        """Applies one record of the topic.

        Raises:
            DecodeError: The record claims to be a stop and cannot be read.
        """
        raw = value or b""
        if codec.kind_of(raw) == ExecutionStop.kind:
            self._stopped[codec.decode(raw, ExecutionStop).execution_id] = None
