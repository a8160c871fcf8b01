"""The relay tree: which region forwards a blob to which, so that it leaves its source region once. Pure.

Every agent derives the same tree. The regions that wait for the blob are ordered by their cost from the source, then in
an order that depends on the digest. The first reads from the source, any other from the cheapest earlier region that
has capacity left. Regions without a relay forward nothing, so they come last, and none of them reads from the source.
"""

import hashlib
from collections.abc import Callable, Iterable

from schemas.names import Digest, Region

FANOUT = 2  # regions that one relay sends to; each halves its uplink

Cost = Callable[[Region, Region], int]  # of the link from one region to another


def parent_of(
    here: Region,
    digest: Digest,
    source: Region,
    relays: Iterable[Region],
    leaves: Iterable[Region],
    cost: Cost,
) -> Region | None:
    """Returns the region that sends the blob to `here`, or None when `here` reads it from the source."""
    children: dict[Region, int] = {}  # the number of regions that each earlier relay sends to
    for region in _ordered(relays, digest, source, cost):
        parent = _cheapest(children, region, cost)
        if region == here:
            return parent
        _add_child(children, parent)
        children[region] = 0
    for region in _ordered(leaves, digest, source, cost):
        parent = _cheapest(children, region, cost)
        if region == here:
            return parent
        _add_child(children, parent)
    return None


def _ordered(regions: Iterable[Region], digest: Digest, source: Region, cost: Cost) -> list[Region]:
    wanted = set(regions) - {source}
    return sorted(wanted, key=lambda region: (cost(source, region), spread(digest, region), region))


def spread(digest: Digest, name: str) -> bytes:
    """Returns a sort key that differs for each digest, so that no region is always the first."""
    return hashlib.sha256(f"{digest}/{name}".encode()).digest()


def _cheapest(children: dict[Region, int], region: Region, cost: Cost) -> Region | None:
    """Returns the earliest of the cheapest relays with capacity, which keeps the tree flat; None without relays."""
    most = max(FANOUT, min(children.values(), default=0) + 1)
    free = [it for it, count in children.items() if count < most]
    return min(free, key=lambda it: cost(it, region)) if free else None


def _add_child(children: dict[Region, int], parent: Region | None) -> None:
    if parent is not None:
        children[parent] += 1
