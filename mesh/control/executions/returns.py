"""When registries came back from a time in which they may have lost notifications.

A registry keeps notifications that nobody took in memory, so they are lost when it ends, and some send each only once.
Nothing is known of the time before control started either.
"""

from datetime import datetime

_READY = "Ready"


class Returns:
    """The last return of each registry, from the states that agents report."""

    def __init__(self, started: datetime) -> None:
        """`started` is when control started: no return is earlier."""
        self._started = started
        self._known = set[str]()  # places that answered at least once
        self._failing = set[str]()
        self._returned: dict[str, datetime] = {}

    def observe(self, place: str, state: str | None, now: datetime) -> datetime | None:
        """Takes a place's state as agents report it now, and returns its last return.

        Args:
            place: The place's name.
            state: `Ready`, `Failed: <reason>`, or None when no live agent uses the place.
            now: The time of the observation.

        Returns:
            When it last returned; None while it is failing, and before it answered for the first time.
        """
        if state is None:  # agents that are away say nothing about the registry
            return None if place in self._failing else self._returned.get(place)
        if state != _READY:
            self._failing.add(place)
            return None
        if place in self._failing:
            self._returned[place] = now
        elif place not in self._known:
            self._returned[place] = self._started
        self._known.add(place)
        self._failing.discard(place)
        return self._returned[place]
