"""What is on its way to this agent's places: expected, or coming in and to be followed."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakSet

from consumer.relay.tee import ALL_WINDOWS, WINDOW, Tee
from consumer.task import Cargo
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
        self._arrivals: dict[Cargo, Arrival] = {}
        self._tees: WeakSet[Tee] = WeakSet()  # all that hold bytes: those that somebody still follows too

    @contextmanager
    def expected(self, cargoes: Iterable[Cargo]) -> Iterator[Callable[[Cargo], None]]:
        """From when it is known that they will come; gives what is told of each that has come, or was there."""
        waiting = set(cargoes)
        for cargo in waiting:
            self._arrivals.setdefault(cargo, Arrival()).expected_by += 1

        def settled(cargo: Cargo) -> None:
            if cargo not in waiting:
                return
            waiting.remove(cargo)
            arrival = self._arrivals[cargo]
            arrival.expected_by -= 1
            if not arrival.expected_by:
                del self._arrivals[cargo]

        try:
            yield settled
        finally:
            for cargo in list(waiting):
                settled(cargo)

    @contextmanager
    def coming(self, cargo: Cargo, size: int) -> Iterator[Tee]:
        """While it comes in. It came in whole when the block ends without an error."""
        arrival = self._arrivals.setdefault(cargo, Arrival())
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
    def asking(self, cargo: Cargo, region: Region) -> Iterator[None]:
        """While another region is asked for it."""
        arrival = self._arrivals.setdefault(cargo, Arrival())
        arrival.waits_for = region
        try:
            yield
        finally:
            arrival.waits_for = None

    def get(self, cargo: Cargo) -> Arrival | None:
        return self._arrivals.get(cargo)

    def _share(self) -> None:
        window = min(WINDOW, ALL_WINDOWS // max(1, len(self._tees)))
        for tee in self._tees:
            tee.resize(window)
