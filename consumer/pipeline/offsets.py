"""What may be committed: of each partition the finished prefix, whatever order the work finishes in. Pure."""

from collections.abc import Iterator, Mapping

from mesh.log.port import Partition

_FULL = 0.9  # of a window


class Offsets:
    """Knows every record that was begun and not yet committed. Offsets may have holes."""

    def __init__(self) -> None:
        self._open: dict[Partition, dict[int, bool]] = {}  # in order of reading; True = finished
        self._finished: dict[Partition, int] = {}  # the next offset to read, where it has moved

    def begin(self, partition: Partition, offset: int) -> None:
        self._open.setdefault(partition, {})[offset] = False

    def finish(self, partition: Partition, offset: int) -> None:
        """The work of a record is done. One of a partition that was forgotten changes nothing."""
        waiting = self._open.get(partition)
        if waiting is None or offset not in waiting:
            return
        waiting[offset] = True
        while waiting and waiting[first := next(iter(waiting))]:
            del waiting[first]
            self._finished[partition] = first + 1

    def in_flight(self, partition: Partition) -> int:
        return len(self._open.get(partition, ()))

    def heads_in_the_way(self, window: int) -> Iterator[tuple[Partition, int]]:
        """Of each partition whose window is as good as full, though most behind its head are finished: the head."""
        for partition, records in self._open.items():
            if len(records) >= _FULL * window and 2 * sum(records.values()) > len(records) - 1:
                yield partition, next(iter(records))

    def committable(self) -> Mapping[Partition, int]:
        """Where each partition's prefix ended since the last `committed`."""
        return dict(self._finished)

    def committed(self, done: Mapping[Partition, int]) -> None:
        for partition, offset in done.items():
            if self._finished.get(partition) == offset:
                del self._finished[partition]

    def forget(self, partition: Partition) -> None:
        """The partition is another's now; it comes back, if ever, from its last commit."""
        self._open.pop(partition, None)
        self._finished.pop(partition, None)
