"""Who may serve a domain in a region, and in which order. Pure.

Instances in the order of their listing: on a clash the first one wins. Of each instance its places in the jurisdiction
of the region, nearest first: the own region, then by the cost that the place's region declares for its link to ours,
else by the round trip measured. Those that do not answer come last.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
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


def holders(state: MeshState, domain: str, region: Region, look: Look) -> list[Holders]:
    """All that may serve `domain` to clients of `region`; empty when nobody may."""
    places: dict[str, list[Place]] = defaultdict(list)
    for place in state.places():
        if boundary.crossing(state, place.region, region) is None:
            places[place.instance].append(place)
    return [
        Holders(instance, _by_distance(state, places[instance.name], region, look))
        for instance in state.instances_of(domain)
        if instance.name in places
    ]


def is_served(state: MeshState, domain: str) -> bool:
    return any(instance.domain == domain for instance in state.instances())


def served_places(state: MeshState, region: Region) -> list[Place]:
    """Every place that a gateway of `region` may ever ask."""
    domains = {instance.domain for instance in state.instances() if instance.domain is not None}
    every = [one for domain in sorted(domains) for one in holders(state, domain, region, lambda _: Seen())]
    return [candidate.place for one in every for candidate in one.candidates]


def distance(state: MeshState, place: Place, region: Region, round_trip_ms: float | None) -> float:
    """From a place to a region: 0 in the same one, the declared cost of the link, or the measured milliseconds."""
    if place.region == region:
        return 0.0
    declared = state.region(place.region)
    links = declared.links if declared is not None else ()
    cost = next((link.cost for link in links if link.to == region), None)
    if cost is not None:
        return float(cost)
    return _UNKNOWN if round_trip_ms is None else round_trip_ms


def _by_distance(
    state: MeshState, places: Iterable[Place], region: Region, look: Look
) -> tuple[Candidate, ...]:
    found = [_candidate(state, place, region, look(place.name)) for place in places]
    return tuple(sorted(found, key=_order))


def _candidate(state: MeshState, place: Place, region: Region, seen: Seen) -> Candidate:
    return Candidate(place, distance(state, place, region, seen.round_trip_ms), seen.up)


def _order(candidate: Candidate) -> tuple[bool, float, bool, str]:
    return not candidate.up, candidate.distance, candidate.place.is_replica, candidate.place.name
