"""What a region says of the ways from it to others: their costs, and what must not be declared of them."""

from collections.abc import Iterable, Mapping

from mesh.rules.state import MeshState
from schemas.declared import Declared
from schemas.names import Region
from schemas.topology import RegionDeclaration

Path = tuple[str | int, ...]


def cost(state: MeshState, one: Region, other: Region) -> int | None:
    """What the way of bytes from `one` to `other` costs: 0 within a region, None where nobody says."""
    if one == other:
        return 0
    region = state.region(one)
    links = region.links if region is not None else ()
    return next((link.cost for link in links if link.to == other), None)


def problems(region: RegionDeclaration, everything: Mapping[str, Declared]) -> Iterable[tuple[Path, str]]:
    """Links to nowhere, to the region itself, and twice to one region."""
    seen = set[str]()
    for index, link in enumerate(region.links):
        if link.to == region.name:
            yield ("links", index, "to"), "is the region itself"
        elif link.to in seen:
            yield ("links", index, "to"), f"a link to {link.to!r} is there already"
        elif f"region/{link.to}" not in everything:
            known = ", ".join(
                sorted(key.partition("/")[2] for key in everything if key.startswith("region/"))
            )
            yield ("links", index, "to"), f"no region is named {link.to!r}; declared are: {known}"
        seen.add(link.to)
