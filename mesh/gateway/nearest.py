"""Who may serve a domain in a region, and in which order. Pure.

Instances in the order of their listing: on a clash the first one wins. Of each instance its places in the jurisdiction
of the region, nearest first: the own region, then by the cost that the place's region declares for its link to ours,
else by the round trip measured. Those that do not answer come last.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from mesh.rules import boundary
from mesh.rules.state import MeshState
from schemas.names import PlaceName, Region
from schemas.topology import Instance, Place

_UNKNOWN = float("inf")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the last look at a place found. A place that nobody looked at yet counts as well."""

    up: bool = True
    round_trip_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    place: Place
    distance: float  # 0 = here; a declared cost, or milliseconds
    up: bool

    @property
    def has_the_say(self) -> bool:
        """Whether what this place does not have, its instance does not have."""
        return not self.place.is_replica


@dataclass(frozen=True, slots=True)
class Holders:
    """An instance with its places, nearest first."""

    instance: Instance
    candidates: tuple[Candidate, ...]


Look = Callable[[PlaceName], Seen]
_Declared = tuple[Place, float | None]  # a place, and its distance as far as that is declared


class Nearest:
    """For the clients of one region. What is declared is gone through once for each change of it, not for each pull."""

    def __init__(self, state: MeshState, region: Region) -> None:
        self._state, self._region = state, region
        self._known_at = -1
        self._domains: dict[str, list[tuple[Instance, list[_Declared]]]] = {}

    def holders(self, domain: str, look: Look) -> list[Holders]:
        """All that may serve `domain`, those with the say first; empty when nobody may."""
        return [
            Holders(instance, _by_distance(places, look))
            for instance, places in self._known().get(domain, [])
            if places
        ]

    def is_declared(self, domain: str) -> bool:
        """Whether there is such a domain, here or in another jurisdiction."""
        return domain in self._known()

    @property
    def knows_its_region(self) -> bool:
        """Without it no jurisdiction is known, so nobody may serve."""
        return self._state.region(self._region) is not None

    def places(self, domain: str | None = None) -> list[Place]:
        """Every place that may ever be asked, for one domain or for all."""
        listings = self._known().values() if domain is None else [self._known().get(domain, [])]
        every = [place for listed in listings for _, places in listed for place, _ in places]
        return list(dict.fromkeys(every))

    def _known(self) -> Mapping[str, list[tuple[Instance, list[_Declared]]]]:
        if self._known_at != self._state.changes:
            self._domains, self._known_at = self._gone_through(), self._state.changes
        return self._domains

    def _gone_through(self) -> dict[str, list[tuple[Instance, list[_Declared]]]]:
        places: dict[str, list[_Declared]] = defaultdict(list)
        for place in self._state.places():
            if boundary.crossing(self._state, place.region, self._region) is None:
                places[place.instance].append((place, declared_distance(self._state, place, self._region)))
        domains = {it.domain for it in self._state.instances() if it.domain is not None}
        return {
            domain: [(it, places.get(it.name, [])) for it in self._state.instances_of(domain)]
            for domain in domains
        }


def declared_distance(state: MeshState, place: Place, region: Region) -> float | None:
    """0 in the same region, else the cost of the link from the place's; None when that is not declared."""
    cost = state.link_cost(place.region, region)
    return None if cost is None else float(cost)


def _by_distance(places: Iterable[_Declared], look: Look) -> tuple[Candidate, ...]:
    return tuple(sorted((_candidate(place, far, look(place.name)) for place, far in places), key=_order))


def _candidate(place: Place, far: float | None, seen: Seen) -> Candidate:
    measured = _UNKNOWN if seen.round_trip_ms is None else seen.round_trip_ms
    return Candidate(place, measured if far is None else far, seen.up)


def _order(candidate: Candidate) -> tuple[bool, float, bool, str]:
    return not candidate.up, candidate.distance, candidate.place.is_replica, candidate.place.name
