"""Which place is nearer: by declared cost, else by a clearly shorter response time."""

import pytest

from consumer.blobs.link_cost import LinkCost
from mesh.rules.state import MeshState
from schemas.codec import encode
from schemas.names import PlaceName, Region
from schemas.state import StateRecord
from schemas.topology import Place
from tests.support.mesh_site import CLOCK

HERE = Region("here")


def nearness(costs: dict[str, int], seconds: dict[str, float]) -> LinkCost:
    """Link costs to this region, and how long the last health check of each region's place took."""
    state = MeshState()
    for rev, name in enumerate(("here", "far", "farther")):
        links = [{"to": "here", "cost": costs[name]}] if name in costs else []
        value = {"name": name, "jurisdiction": "x", "links": links}
        record = StateRecord(id=name, time=CLOCK.now(), noun="region", value=value)
        state.apply(f"region/{name}", encode(record), rev)
    return LinkCost(HERE, state, seconds.get)


def place(region: str) -> Place:
    return Place(
        name=PlaceName(region), instance="game", account="game", region=Region(region), url="http://x"
    )


@pytest.mark.parametrize(
    ("costs", "seconds", "nearer"),
    [
        ({"far": 10, "farther": 20}, {}, True),
        ({"far": 10, "farther": 10}, {}, False),
        ({"far": 20, "farther": 10}, {"far": 0.001, "farther": 9}, False),  # the operator knows better
        ({}, {"far": 0.010, "farther": 0.100}, True),
        ({}, {"far": 0.090, "farther": 0.100}, False),  # not clearly
        ({}, {"far": 0.0001, "farther": 0.0002}, False),  # all times under a millisecond are equal
        ({}, {"farther": 0.100}, False),  # it does not answer
        ({}, {"far": 0.100}, True),  # the other one does not
        ({"far": 10}, {"farther": 0.100}, True),
    ],
)
def test_a_place_that_costs_less_is_nearer(
    costs: dict[str, int], seconds: dict[str, float], nearer: bool
) -> None:
    assert nearness(costs, seconds).is_nearer(place("far"), place("farther")) is nearer


def test_no_place_is_nearer_than_one_in_this_region() -> None:
    seen = nearness({"far": 0}, {"far": 0.0})
    assert seen.cost(place("here")) == 0
    assert seen.is_nearer(place("here"), place("farther"))
    assert not seen.is_nearer(place("far"), place("here"))


def test_all_agents_compute_the_same_declared_costs() -> None:
    seen = nearness({"far": 7}, {"far": 3.0, "farther": 3.0})
    assert seen.declared_cost(Region("far"), HERE) == 7
    assert seen.declared_cost(Region("farther"), HERE) == seen.declared_cost(HERE, Region("far")) == 100
    assert seen.declared_cost(HERE, HERE) == 0
