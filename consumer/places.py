"""The registries an agent talks to: opened when first needed, looked at from time to time, each failing by itself."""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from mesh.errors import RegmeshError
from mesh.metrics import Metrics
from mesh.registry.port import Endpoint, Registry
from schemas.completions import Side
from schemas.names import PlaceName
from schemas.topology import Instance

log = structlog.get_logger()

READY = "Ready"
_LOOK_SECONDS = (
    20.0  # a registry that has not answered by then is Failed; its tasks have time-outs of their own
)

Opener = Callable[[Instance], Endpoint]


class Places:
    """Endpoints by instance. A changed declaration (another URL, other credentials) gets a new endpoint."""

    def __init__(self, open_endpoint: Opener, *, open_anonymous: Opener, metrics: Metrics) -> None:
        self._open, self._open_anonymous = open_endpoint, open_anonymous
        self._metrics = metrics
        self._endpoints: dict[Instance, Endpoint] = {}
        self._anonymous: dict[Instance, Endpoint] = {}  # of those that a rule asks to be public
        self._states: dict[PlaceName, str] = {}

    def registry(self, instance: Instance, side: Side) -> Registry:
        """The place as one side of a task; raises what `Opener` raises when it has no usable credentials."""
        return self._endpoint(instance).registry(side)

    def anonymous(self, instance: Instance) -> Registry:
        """The place as a source for whoever has no credentials there."""
        if instance not in self._anonymous:
            self._anonymous[instance] = self._open_anonymous(instance)
        return self._anonymous[instance].registry(Side.SOURCE)

    def states(self) -> dict[PlaceName, str]:
        """`Ready`, or `Failed: ` and the reason, of every place looked at."""
        return dict(self._states)

    async def look(self, instances: Iterable[Instance]) -> bool:
        """Ask each place whether it answers and takes our credentials, all at once; True when a state changed.

        Closes the endpoints of declarations that are no more.
        """
        used = list(instances)
        before = self._states.copy()
        await asyncio.gather(*(self._look_at(instance) for instance in used))
        names = {instance.place for instance in used}
        self._states = {place: state for place, state in self._states.items() if place in names}
        for endpoints in (self._endpoints, self._anonymous):
            for instance in endpoints.keys() - set(used):
                await endpoints.pop(instance).close()
        return self._states != before

    async def close(self) -> None:
        for endpoints in (self._endpoints, self._anonymous):
            while endpoints:
                await endpoints.popitem()[1].close()

    def _endpoint(self, instance: Instance) -> Endpoint:
        if instance not in self._endpoints:
            self._endpoints[instance] = self._open(instance)
        return self._endpoints[instance]

    async def _look_at(self, instance: Instance) -> None:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._endpoint(instance).ping()
            state = READY
        except RegmeshError as error:
            state = f"Failed: {error}"
        except TimeoutError:
            state = f"Failed: no answer within {_LOOK_SECONDS:.0f} s"
        if state != self._states.get(instance.place):
            log.info("place", action="place_state", place=instance.place, state=state)
        self._states[instance.place] = state
        self._metrics.place_up.labels(instance.place).set(state == READY)
