"""The data-residency border: what replicates stays in its jurisdiction. A synchronization rule may cross it.

Asked three times of each copy to a replica: when the replica is declared, when an event is matched, and right before
anything is written.
"""

from mesh.rules.state import MeshState
from schemas.names import Region
from schemas.rules import Rule
from schemas.topology import Place


def refusal(state: MeshState, rule: Rule, source: Place, destination: Place) -> str | None:
    """Why a rule that replicates, or runs ahead of its manifests, may not bring this there; None when it may."""
    if rule.replica is None:
        return None
    return crossing(state, source.region, destination.region)


def prefetch_refused(state: MeshState, source: Place, destination: Place) -> bool:
    """Whether no layer may run ahead of its manifest: none crosses a border, nor comes to another account."""
    return (
        source.account != destination.account
        or crossing(state, source.region, destination.region) is not None
    )


def crossing(state: MeshState, one: Region, other: Region) -> str | None:
    """How two regions are parted by a border; None when both are known to be in one jurisdiction."""
    here, there = state.region(one), state.region(other)
    if here is None or there is None:
        return (
            f"region {(one if here is None else other)!r} is not declared, so nobody knows its jurisdiction"
        )
    if here.jurisdiction == there.jurisdiction:
        return None
    return (
        f"{one!r} is in jurisdiction {here.jurisdiction!r} and {other!r} in {there.jurisdiction!r}: "
        "replication never crosses it; a synchronization rule may"
    )
