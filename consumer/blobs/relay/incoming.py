"""What is on its way to this agent's places: expected, or coming in and to be followed."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakSet

from consumer.blobs.relay.tee import ALL_WINDOWS, WINDOW, Tee
from consumer.task import BlobKey
from schemas.names import Region


@dataclass(slots=True)
class Arrival:
    expected_by: int = 0  # tasks that want it
    tee: Tee | None = None  # while it comes in
    waits_for: Region | None = None  # whose relay is asked for it


class Incoming:
    """Shared by all transfers of an agent. Nothing is kept for followers where none can come."""

    def __init__(self, is_relay: Callable[[], bool]) -> None:
        self.is_relay = is_relay
        self._arrivals: dict[BlobKey, Arrival] = {}
        self._tees: WeakSet[Tee] = WeakSet()  # all that hold bytes: those that somebody still follows too

    @contextmanager
    def expected(self, blob_keys: Iterable[BlobKey]) -> Iterator[Callable[[BlobKey], None]]:
        """From when it is known that they will come; gives what is told of each that has come, or was there."""
        waiting = set(blob_keys)
        for blob_key in waiting:
            self._arrivals.setdefault(blob_key, Arrival()).expected_by += 1

        def settled(blob_key: BlobKey) -> None:
            if blob_key not in waiting:
                return
            waiting.remove(blob_key)
            arrival = self._arrivals[blob_key]
            arrival.expected_by -= 1
            if not arrival.expected_by:
                del self._arrivals[blob_key]

        try:
            yield settled
        finally:
            for blob_key in list(waiting):
                settled(blob_key)

    @contextmanager
    def coming(self, blob_key: BlobKey, size: int) -> Iterator[Tee]:
        """While it comes in. It came in whole when the block ends without an error."""
        arrival = self._arrivals.setdefault(blob_key, Arrival())
        arrival.tee = tee = Tee(size, 0 if self.is_relay() else None)
        self._tees.add(tee)
        self._share()
        try:
            yield tee
        except BaseException:
            tee.end(whole=False)
            raise
        else:
            tee.end(whole=True)
        finally:
            arrival.tee = None
            self._share()

    @contextmanager
    def asking(self, blob_key: BlobKey, region: Region) -> Iterator[None]:
        """While another region is asked for it."""
        arrival = self._arrivals.setdefault(blob_key, Arrival())
        arrival.waits_for = region
        try:
            yield
        finally:
            arrival.waits_for = None

    def get(self, blob_key: BlobKey) -> Arrival | None:
        return self._arrivals.get(blob_key)

    def _share(self) -> None:
        window = min(WINDOW, ALL_WINDOWS // max(1, len(self._tees)))
        for tee in self._tees:
            tee.resize(window)
