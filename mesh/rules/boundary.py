"""The data-residency boundary: replication stays in its jurisdiction; a synchronization rule may leave it.

It is checked three times for each copy to a replica: when the replica is declared, when an event is matched, and right
before anything is written.
"""

from mesh.rules.state import MeshState
from schemas.names import Region
from schemas.rules import Rule
from schemas.topology import Place


def refusal(state: MeshState, rule: Rule, source: Place, destination: Place) -> str | None:
    """Returns why the rule of a replica may not copy from `source` to `destination`; None when it may."""
    if rule.replica is None:
        return None
    return crossing(state, source.region, destination.region)


def prefetch_refused(state: MeshState, source: Place, destination: Place) -> bool:
    """Checks whether layers may not be prefetched: across a jurisdiction's border, or into another account."""
    return (
        source.account != destination.account
        or crossing(state, source.region, destination.region) is not None
    )


def crossing(state: MeshState, one: Region, other: Region) -> str | None:
    """Returns how a border separates two regions; None when both are known to be in one jurisdiction."""
    here, there = state.region(one), state.region(other)
    if here is None or there is None:
        return f"region {(one if here is None else other)!r} is not declared, so its jurisdiction is unknown"
    if here.jurisdiction == there.jurisdiction:
        return None
    return (
        f"{one!r} is in jurisdiction {here.jurisdiction!r} and {other!r} in {there.jurisdiction!r}: "
        "replication never crosses it; a synchronization rule may"
    )
