"""The registries of an agent: opened when first needed, checked from time to time, each failing by itself."""

import asyncio
from collections.abc import Callable, Collection, Iterable

import structlog

from mesh.clock import Clock
from mesh.concurrency import close_all
from mesh.errors import RegmeshError, Unreachable
from mesh.metrics import Metrics
from mesh.registry.port import Chain, Endpoint, Registry
from schemas.completions import READY, Side
from schemas.names import PlaceName
from schemas.topology import Place

LOG = structlog.get_logger()

_CHECK_SECONDS = 20.0  # without an answer by then a place is Failed; tasks have time-outs of their own

Opener = Callable[[Place], Endpoint]


class Places:
    """The endpoint of each place. A changed declaration (another URL, other credentials) gets a new endpoint."""

    def __init__(
        self, open_endpoint: Opener, *, open_anonymous: Opener, metrics: Metrics, clock: Clock
    ) -> None:
        self._open, self._open_anonymous = open_endpoint, open_anonymous
        self._metrics, self._clock = metrics, clock
        self._closed = False
        self._endpoints: dict[Place, Endpoint] = {}
        self._anonymous: dict[Place, Endpoint] = {}  # of those that a rule asks to be public
        self._states: dict[PlaceName, str] = {}
        self._suspects = set[Place]()  # checked again soon, whatever their state
        self._failing = set[Place]()  # checked again soon, until they are ready
        self._checked_again = clock.monotonic()
        self._returned = set[PlaceName]()
        self._took: dict[PlaceName, float] = {}

    def registry(self, place: Place, side: Side, chain: Chain | None = None) -> Registry:
        """Returns the place as one side of a task.

        Raises:
            RegmeshError: It has no usable credentials, or the agent has stopped.
        """
        return self._endpoint(place, side).registry(side, chain)

    def anonymous(self, place: Place) -> Registry:
        """Returns the place as a source for clients without credentials."""
        self._check_open(Side.SOURCE)
        if place not in self._anonymous:
            self._anonymous[place] = self._open_anonymous(place)
        return self._anonymous[place].registry(Side.SOURCE)

    def answered_in(self, name: PlaceName) -> float | None:
        """Returns the seconds that the last check of a place took; None when it failed, or there was none."""
        return self._took.get(name)

    def states(self) -> dict[PlaceName, str]:
        """Returns `Ready`, or `Failed: ` and the reason, for every checked place."""
        return dict(self._states)

    def found_unreachable(self, place: Place, reason: str) -> None:
        """Takes what a task found out: the place counts as failing until the next check succeeds."""
        self._set_state(place, f"Failed: {reason}")

    def suspect(self, place: Place) -> None:
        """Takes what a task found out: a proxy answered for the place, perhaps, so that it is checked soon."""
        self._suspects.add(place)

    def returned(self) -> Collection[PlaceName]:
        """Returns the places that became ready since the last call."""
        returned, self._returned = self._returned, set()
        return returned

    async def check_again(self, every: float) -> bool:
        """Checks the places that fail and those that are suspected; returns whether a state changed.

        Between two checks are `every` seconds at least.
        """
        now = self._clock.monotonic()
        if not (self._failing or self._suspects) or now < self._checked_again + every:
            return False
        self._checked_again, before = now, self._states.copy()
        places, self._suspects = self._failing | self._suspects, set()
        await asyncio.gather(*(self._check_place(place) for place in places))
        return self._states != before

    async def check(self, places: Iterable[Place], *, nearby: Iterable[Place] = ()) -> bool:
        """Checks concurrently that each place answers and accepts the credentials; returns whether a state changed.

        Of the `nearby` places only the time they took is kept. Endpoints of places that are not given are closed.
        """
        needed = list(places)
        used = [*needed, *nearby]
        before = self._states.copy()
        await asyncio.gather(*(self._check_place(place) for place in used))
        self._failing &= set(needed)
        names = {place.name for place in needed}
        self._states = {name: state for name, state in self._states.items() if name in names}
        for endpoints in (self._endpoints, self._anonymous):
            for place in endpoints.keys() - set(used):
                await endpoints.pop(place).close()
        return self._states != before

    async def close(self) -> None:
        """Closes all endpoints for good: one that the relay opened later would never be closed."""
        self._closed = True
        open_ones = [*self._endpoints.values(), *self._anonymous.values()]
        self._endpoints.clear()
        self._anonymous.clear()
        await close_all(*(endpoint.close for endpoint in open_ones))

    def _check_open(self, side: Side) -> None:
        if self._closed:
            raise Unreachable("this agent has stopped", side=side)

    def _endpoint(self, place: Place, side: Side) -> Endpoint:
        self._check_open(side)
        if place not in self._endpoints:
            self._endpoints[place] = self._open(place)
        return self._endpoints[place]

    async def _check_place(self, place: Place) -> None:
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await self._endpoint(place, Side.SOURCE).ping()
            state = READY
            self._took[place.name] = self._clock.monotonic() - began
        except RegmeshError as error:
            state = f"Failed: {error}"
        except TimeoutError:
            state = f"Failed: no answer within {_CHECK_SECONDS:.0f} s"
        self._set_state(place, state)

    def _set_state(self, place: Place, state: str) -> None:
        name = place.name
        if state == READY:
            self._failing.discard(place)
            if self._states.get(name) != READY:
                self._returned.add(name)
        else:
            self._failing.add(place)
            self._took.pop(name, None)
        if state != self._states.get(name):
            LOG.info("place", action="place_state", place=name, state=state)
        self._states[name] = state
        self._metrics.place_up.labels(name).set(state == READY)
