"""Notes which processes of a registry send notifications, so that control learns of a restart.

A registry keeps notifications that nobody took in memory, and forgets them when it ends. It may be back before anybody
notices that it was away; but the next notification comes from another process.
"""

from collections.abc import Sequence

from cachetools import LRUCache

from mesh.clock import Clock
from mesh.log.port import Append
from schemas import codec, topics
from schemas.envelope import make_id
from schemas.registry_processes import RegistryProcess
from schemas.topology import Instance

_MOST_KNOWN = 10_000
_SPACING = (
    1.0  # seconds between two new processes of an instance; so a sender that invents them causes few records
)


class RegistryProcesses:
    """What one intake knows of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: LRUCache[tuple[str, str], bool] = LRUCache(_MOST_KNOWN)
        self._last: LRUCache[str, float] = LRUCache(_MOST_KNOWN)  # by instance, when a new one was noted

    def records_of(self, instance: Instance, process: str | None) -> Sequence[Append]:
        """Returns the records to write because of a notification: none if the process is known."""
        if process is None or (instance.name, process) in self._known:
            return ()
        last = self._last.get(instance.name)
        if last is not None and self._clock.monotonic() < last + _SPACING:
            return ()  # its next notification notes it
        now = self._clock.now()
        record = RegistryProcess(
            id=make_id("registry_process", instance.name, process), time=now, instance=instance.name, process=process
        )  # fmt: skip
        return [Append(topics.status(instance.region), record.key, codec.encode(record))]

    def note_written(self, instance: Instance, process: str) -> None:
        """Notes that the record of a process is on the log, so that it is not written again."""
        self._known[instance.name, process] = True
        self._last[instance.name] = self._clock.monotonic()
