"""Which offsets may be committed: the finished prefix of each partition, in whatever order the work finishes. Pure."""

from collections.abc import Iterator, Mapping

from mesh.log.port import Partition

_FULL = 0.9  # of a window


class Offsets:
    """Knows every record that was started and is not committed yet. Offsets may have holes."""

    def __init__(self) -> None:
        self._open: dict[Partition, dict[int, bool]] = {}  # in order of reading; True = finished
        self._finished: dict[Partition, int] = {}  # the next offset to read, where it has moved

    def start(self, partition: Partition, offset: int) -> None:
        """Adds a record whose work starts now."""
        self._open.setdefault(partition, {})[offset] = False

    def finish(self, partition: Partition, offset: int) -> None:
        """Marks a record as finished; changes nothing when its partition was forgotten."""
        waiting = self._open.get(partition)
        if waiting is None or offset not in waiting:
            return
        waiting[offset] = True
        while waiting and waiting[first := next(iter(waiting))]:
            del waiting[first]
            self._finished[partition] = first + 1

    def in_flight(self, partition: Partition) -> int:
        """Returns the number of records of the partition that are not in its finished prefix."""
        return len(self._open.get(partition, ()))

    @property
    def is_idle(self) -> bool:
        """Whether no record is unfinished, and nothing is to be committed."""
        return not any(self._open.values()) and not self._finished

    def blocking_heads(self, window: int) -> Iterator[tuple[Partition, int]]:
        """Yields the first unfinished record of each partition whose window is nearly full of finished ones."""
        for partition, records in self._open.items():
            if len(records) >= _FULL * window and 2 * sum(records.values()) > len(records) - 1:
                yield partition, next(iter(records))

    def committable(self) -> Mapping[Partition, int]:
        """Returns where each partition's finished prefix ends, where that has moved since `committed`."""
        return dict(self._finished)

    def committed(self, done: Mapping[Partition, int]) -> None:
        """Takes over what was committed."""
        for partition, offset in done.items():
            if self._finished.get(partition) == offset:
                del self._finished[partition]

    def forget(self, partition: Partition) -> None:
        """Drops a revoked partition; when it is assigned again, it is read from its last commit."""
        self._open.pop(partition, None)
        self._finished.pop(partition, None)
