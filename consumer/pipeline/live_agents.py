"""Which agents of this region live, by their heartbeats."""

from datetime import datetime

from mesh.log.port import Record
from schemas import codec
from schemas.completions import AGENT_LIVES_FOR, Heartbeat


class LiveAgents:
    """Fed by a table of `mesh.<region>.status`."""

    def __init__(self) -> None:
        self._last: dict[str, datetime] = {}

    def apply(self, record: Record) -> None:
        """Take one record over; `DecodeError` when it is no record of ours."""
        if record.value is None:
            self._last.pop(record.key, None)
        elif codec.kind_of(record.value) == Heartbeat.kind:
            self._last[record.key] = codec.decode(record.value, Heartbeat).time

    def names(self, now: datetime) -> set[str]:
        return {name for name, time in self._last.items() if time > now - AGENT_LIVES_FOR}
