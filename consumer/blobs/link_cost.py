"""The cost of reading from a place: the declared cost of the link, else the time of its last health check."""

import math
from collections.abc import Callable

from mesh.rules.state import MeshState
from schemas.names import PlaceName, Region
from schemas.topology import Place

_UNDECLARED = (
    100  # the cost of an undeclared link, the same for all agents, so that all derive one relay tree
)
_CLEARLY = 0.8  # the share of the other's measured time below which a place counts as nearer


class LinkCost:
    """The costs seen from one region. Costs are only compared with each other; measured ones are milliseconds."""

    def __init__(
        self, region: Region, state: MeshState, answered_in: Callable[[PlaceName], float | None]
    ) -> None:
        """`answered_in` returns the seconds that the last health check of a place took."""
        self._region, self._state, self._answered_in = region, state, answered_in

    def declared_cost(self, one: Region, other: Region) -> int:
        """Returns the cost of the link from `one` to `other`, which is the same for every agent."""
        found = self._state.link_cost(one, other)
        return found if found is not None else _UNDECLARED

    def cost(self, place: Place) -> float:
        """Returns the cost of a place; infinite when it does not answer or was not checked yet."""
        if (declared := self._state.link_cost(place.region, self._region)) is not None:
            return float(declared)
        seconds = self._answered_in(place.name)
        return math.inf if seconds is None else max(1.0, seconds * 1000)

    def is_nearer(self, place: Place, than: Place) -> bool:
        """Returns whether `place` costs less than `than`; a measured cost has to be clearly less."""
        one, other = self.cost(place), self.cost(than)
        measured = [it for it in (place, than) if self._state.link_cost(it.region, self._region) is None]
        is_here = place.region == self._region
        return one < (other * _CLEARLY if measured and not is_here else other)
