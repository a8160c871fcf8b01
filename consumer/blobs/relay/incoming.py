"""The blobs that this agent expects or receives for its places."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakSet

from consumer.blobs.relay.tee import ALL_WINDOWS, WINDOW, Tee
from consumer.task import BlobKey
from schemas.names import Region


@dataclass(slots=True)
class Arrival:
    """The state of one blob on its way to a place."""

    expected_by: int = 0  # tasks that want it
    tee: Tee | None = None  # while it is received
    waits_for: Region | None = None  # the region whose relay is asked for it


class Incoming:
    """The arrivals of all transfers of an agent. Without a relay no bytes are kept for followers.

    Args:
        is_relay: Whether others may follow what this agent receives.
        tees: All that hold bytes in this process, also ended ones that are still followed; they share one bound.
    """

    def __init__(self, is_relay: Callable[[], bool], tees: WeakSet[Tee] | None = None) -> None:
        self.is_relay = is_relay
        self._arrivals: dict[BlobKey, Arrival] = {}
        self._tees: WeakSet[Tee] = WeakSet() if tees is None else tees

    @contextmanager
    def expecting(self, blob_keys: Iterable[BlobKey]) -> Iterator[Callable[[BlobKey], None]]:
        """Expects the blobs within the block. Yields a function to call for each that has arrived or was there."""
        waiting = set(blob_keys)
        for blob_key in waiting:
            self._arrivals.setdefault(blob_key, Arrival()).expected_by += 1

        def settle(blob_key: BlobKey) -> None:
            if blob_key not in waiting:
                return
            waiting.remove(blob_key)
            arrival = self._arrivals[blob_key]
            arrival.expected_by -= 1
            if not arrival.expected_by:
                del self._arrivals[blob_key]

        try:
            yield settle
        finally:
            for blob_key in list(waiting):
                settle(blob_key)

    @contextmanager
    def receiving(self, blob_key: BlobKey, size: int) -> Iterator[Tee]:
        """Yields a tee for a blob of `size` bytes that is received in the block; an error means an incomplete blob."""
        arrival = self._arrivals.setdefault(blob_key, Arrival())
        arrival.tee = tee = Tee(size, 0 if self.is_relay() else None)
        self._tees.add(tee)
        self._share_memory()
        try:
            yield tee
        except BaseException:
            tee.end(complete=False)
            raise
        else:
            tee.end(complete=True)
        finally:
            arrival.tee = None
            self._share_memory()

    @contextmanager
    def waiting_for(self, blob_key: BlobKey, region: Region) -> Iterator[None]:
        """Records within the block that another region's relay is asked for the blob."""
        arrival = self._arrivals.setdefault(blob_key, Arrival())
        arrival.waits_for = region
        try:
            yield
        finally:
            arrival.waits_for = None

    def get(self, blob_key: BlobKey) -> Arrival | None:
        """Returns the arrival of a blob that is expected or received."""
        return self._arrivals.get(blob_key)

    def _share_memory(self) -> None:
        window = min(WINDOW, ALL_WINDOWS // max(1, len(self._tees)))
        for tee in self._tees:
            tee.resize(window)
