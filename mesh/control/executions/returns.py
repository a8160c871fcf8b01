"""When registries came back from a time in which they may have lost notifications, and what to list because of it.

A registry keeps notifications that nobody took in memory, so they are lost when it ends, and some send each only once.
Nothing is known of the time before control started either. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum, auto

from mesh.control.executions.store import WholeListing
from mesh.errors import HelperFailed, ServerFault, Throttled, Unreachable
from schemas.completions import READY

_SPACING = timedelta(seconds=20)  # after one listing; twice that after two of the last hour, and so on
_COUNTED = timedelta(hours=1)
_TRANSIENT = frozenset(error.code for error in (HelperFailed, ServerFault, Throttled, Unreachable))


class Returns:
    """The last return of each registry, from the states that agents report."""

    def __init__(self, started: datetime) -> None:
        """`started` is when control started: no return is earlier."""
        self._started = started
        self._failing = set[str]()
        self._returned: dict[str, datetime] = {}

    def observe(self, places: Iterable[str], states: Mapping[str, str], now: datetime) -> None:
        """Takes the states of places as agents report them now: `Ready` or `Failed: <reason>`.

        A place without a state is left as it is: agents that are away say nothing about its registry.
        """
        for place in places:
            state = states.get(place)
            if state is not None and state != READY:
                self._failing.add(place)
            elif state == READY and place in self._failing:
                self._failing.discard(place)
                self._returned[place] = now
            elif state == READY:
                self._returned.setdefault(place, self._started)

    def of(self, place: str) -> datetime | None:
        """Returns when a place last returned; None while it is failing, and before it answered for the first time."""
        return None if place in self._failing else self._returned.get(place)


class Step(Enum):
    """What is to be done about a rule whose source is back."""

    NOTHING = auto()  # its source was listed since
    WAIT = auto()
    COMPARE = auto()


def next_step(listings: Sequence[WholeListing], returned: datetime, now: datetime) -> Step:
    """Decides whether a rule's source is listed again.

    A listing that the registry cut short does not count. A registry that comes and goes is listed less and less often.

    Args:
        listings: The last listings of all that the rule matches, newest first.
        returned: When the source returned.
        now: The present time.
    """
    if not listings:
        return Step.WAIT  # for its backfill
    last = listings[0]
    if not last.listed:
        return Step.WAIT
    if last.start_time >= returned and last.error_code not in _TRANSIENT:
        return Step.NOTHING
    recent = sum(one.start_time > now - _COUNTED for one in listings)
    return Step.COMPARE if now >= last.start_time + _SPACING * 2 ** max(0, recent - 1) else Step.WAIT
