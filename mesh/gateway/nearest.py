"""Which places may serve a domain in a region, and in which order.

Instances come in the order of their listing: where two have an image of one name, the first wins. The places of each
are those in the jurisdiction of the region, nearest first: the own region, then by the cost that the place's region
declares for its link to this one, else by the measured round trip. Places that do not answer come last.

The account that is listed first owns the domain: clients' credentials are for its registries, and go to no others.
Which account that is depends on declarations alone, never on what a registry answers or whether it does.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from mesh.rules import boundary
from mesh.rules.state import MeshState
from schemas.names import Account, PlaceName, Region
from schemas.topology import Instance, Place

_UNKNOWN = float("inf")


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What the last probe of a place found. A place that was not probed yet counts as up."""

    up: bool = True
    round_trip_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place that may serve. `distance` is 0 in the own region, else a declared cost, or milliseconds."""

    place: Place
    distance: float
    up: bool

    @property
    def is_authoritative(self) -> bool:
        """Returns whether what this place does not have, its instance does not have."""
        return not self.place.is_replica


@dataclass(frozen=True, slots=True)
class RankedInstance:
    """An instance with its places, nearest first.

    Args:
        takes_credentials: Whether the instance belongs to the account that owns the domain.
    """

    instance: Instance
    candidates: tuple[Candidate, ...]
    takes_credentials: bool


GetProbeResult = Callable[[PlaceName], ProbeResult]
_DeclaredPlace = tuple[Place, float | None]  # a place, and its distance as far as that is declared
_Listed = list[tuple[Instance, list[_DeclaredPlace]]]
_Domains = Mapping[str, _Listed]


class NearestPlaces:
    """The places for the clients of one region, derived from the declarations once for each change of these."""

    def __init__(self, state: MeshState, region: Region) -> None:
        self._state, self._region = state, region
        self._derived_at = -1
        self._domains: _Domains = {}

    def ranked(self, domain: str, probe_result: GetProbeResult) -> list[RankedInstance]:
        """Returns the instances that may serve `domain`, in the order of listing; empty when none may."""
        listed = self._derived().get(domain, [])
        return [
            RankedInstance(instance, _by_distance(places, probe_result), instance.account == _owner(listed))
            for instance, places in listed
            if places
        ]

    def takes_credentials(self, place: Place) -> bool:
        """Returns whether the account of a place owns the domain of its instance."""
        return any(
            place.account == _owner(listed)
            for listed in self._derived().values()
            if any(instance.name == place.instance for instance, _ in listed)
        )

    def is_declared(self, domain: str) -> bool:
        """Returns whether an instance has this domain, here or in another jurisdiction."""
        return domain in self._derived()

    @property
    def knows_its_region(self) -> bool:
        """Returns whether the region is declared; without that its jurisdiction is unknown, and no place may serve."""
        return self._state.region(self._region) is not None

    def places(self, domain: str | None = None) -> list[Place]:
        """Returns every place that may be asked, for one domain or for all."""
        listings = self._derived().values() if domain is None else [self._derived().get(domain, [])]
        every = [place for listed in listings for _, places in listed for place, _ in places]
        return list(dict.fromkeys(every))

    def _derived(self) -> _Domains:
        if self._derived_at != self._state.changes:
            self._domains, self._derived_at = self._derive(), self._state.changes
        return self._domains

    def _derive(self) -> _Domains:
        places: dict[str, list[_DeclaredPlace]] = defaultdict(list)
        for place in self._state.places():
            if boundary.crossing(self._state, place.region, self._region) is None:
                places[place.instance].append((place, self._state.link_cost(place.region, self._region)))
        domains = {it.domain for it in self._state.instances() if it.domain is not None}
        return {
            domain: [(it, places.get(it.name, [])) for it in self._state.instances_of(domain)]
            for domain in domains
        }


def _owner(listed: _Listed) -> Account | None:
    """Returns the account that owns a domain, also when it has no place in the jurisdiction of this region."""
    return listed[0][0].account if listed else None


def _by_distance(places: Iterable[_DeclaredPlace], probe_result: GetProbeResult) -> tuple[Candidate, ...]:
    found = (_candidate(place, distance, probe_result(place.name)) for place, distance in places)
    return tuple(sorted(found, key=_order))


def _candidate(place: Place, declared: float | None, probed: ProbeResult) -> Candidate:
    measured = _UNKNOWN if probed.round_trip_ms is None else probed.round_trip_ms
    return Candidate(place, measured if declared is None else declared, probed.up)


def _order(candidate: Candidate) -> tuple[bool, float, bool, str]:
    return not candidate.up, candidate.distance, candidate.place.is_replica, candidate.place.name
