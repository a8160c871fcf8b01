"""What it costs to read from a place: as the operator says of the link, else as the last look at its registry took."""

import math
from collections.abc import Callable

from mesh.rules.state import MeshState
from schemas.names import PlaceName, Region
from schemas.topology import Place

_UNDECLARED = 100  # of a link of which nobody says anything; alike for all, so that all derive one tree
_CLEARLY = 0.8  # of measured times: what is not clearly nearer is not nearer


class LinkCost:
    """Seen from one region. Costs of links are compared with each other only; measured ones are milliseconds."""

    def __init__(
        self, region: Region, state: MeshState, answered_in: Callable[[PlaceName], float | None]
    ) -> None:
        """`answered_in`: seconds that the last look at a place took."""
        self._region, self._state, self._answered_in = region, state, answered_in

    def declared_cost(self, one: Region, other: Region) -> int:
        """Of the link from `one` to `other`, as every agent knows it."""
        found = self._state.link_cost(one, other)
        return found if found is not None else _UNDECLARED

    def cost(self, place: Place) -> float:
        """Infinite for a place that does not answer, or that nobody has looked at."""
        if (declared := self._state.link_cost(place.region, self._region)) is not None:
            return float(declared)
        seconds = self._answered_in(place.name)
        return math.inf if seconds is None else max(1.0, seconds * 1000)

    def is_nearer(self, place: Place, than: Place) -> bool:
        one, other = self.cost(place), self.cost(than)
        measured = [it for it in (place, than) if self._state.link_cost(it.region, self._region) is None]
        is_here = place.region == self._region
        return one < (other * _CLEARLY if measured and not is_here else other)
