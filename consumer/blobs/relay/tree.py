"""Who sends a blob on to whom, so that it leaves its source region once. Pure: every agent derives the same tree.

The regions that wait for the blob are put in an order that depends on its digest, those first that the source reaches
cheaply. The first reads from the source; each of the others from the cheapest region before it that still has a place.
A region without a relay sends nothing on, so it comes last, and however many of those there are, none asks the source.
"""

import hashlib
from collections.abc import Callable, Iterable

from schemas.names import Digest, Region

FANOUT = 2  # regions that one relay sends to: two halve its uplink, more would starve each other

Cost = Callable[[Region, Region], int]  # from, to


def parent_of(
    here: Region,
    digest: Digest,
    source: Region,
    relays: Iterable[Region],
    leaves: Iterable[Region],
    cost: Cost,
) -> Region | None:
    """The region that `here` is sent the blob by; None = it reads it from the source itself."""
    places: dict[Region, int] = {}  # of the relays that have their turn already, and how many they send to
    for region in _ordered(relays, digest, source, cost):
        parent = _cheapest(places, region, cost)
        if region == here:
            return parent
        _take(places, parent)
        places[region] = 0
    for region in _ordered(leaves, digest, source, cost):
        parent = _cheapest(places, region, cost)
        if region == here:
            return parent
        _take(places, parent)
    return None


def _ordered(regions: Iterable[Region], digest: Digest, source: Region, cost: Cost) -> list[Region]:
    wanted = set(regions) - {source}
    return sorted(wanted, key=lambda region: (cost(source, region), spread(digest, region), region))


def spread(digest: Digest, name: str) -> bytes:
    """A number of a name that is another one for each digest, so that no region is always the first."""
    return hashlib.sha256(f"{digest}/{name}".encode()).digest()


def _cheapest(places: dict[Region, int], region: Region, cost: Cost) -> Region | None:
    """Among equals the one that has waited longest, which keeps the tree low; None only before the first."""
    most = max(FANOUT, min(places.values(), default=0) + 1)
    free = [it for it, sends_to in places.items() if sends_to < most]
    return min(free, key=lambda it: cost(it, region)) if free else None


def _take(places: dict[Region, int], parent: Region | None) -> None:
    if parent is not None:
        places[parent] += 1
