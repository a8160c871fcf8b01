"""The chain in the User-Agent of a push: how it is formatted and parsed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.registry.chain import format_user_agent, parse_user_agent
from mesh.registry.port import Chain
from mesh.registry.sessions import USER_AGENT
from schemas.names import PlaceName


@given(st.sampled_from(["cn", "game-cn", "game-cn@shanghai"]), st.integers(0, 8))
def test_a_formatted_chain_is_parsed_again(origin, hops):
    chain = Chain(PlaceName(origin), hops)
    assert parse_user_agent(format_user_agent(USER_AGENT, chain)) == chain


@pytest.mark.parametrize(
    "user_agent",
    [None, 3, "", "docker/24", USER_AGENT, "regmesh/1 (origin=; hops=1)", "regmesh/1 (origin=NOT; hops=1)",
     "regmesh/1 (origin=cn; hops=12)", "x regmesh/1 (origin=cn; hops=1)", "regmesh/1 (origin=cn; hops=1) x"],
)  # fmt: skip
def test_other_user_agents_have_no_chain(user_agent):
    assert parse_user_agent(user_agent) is None


@given(st.text())
def test_any_text_is_parsed(user_agent):
    found = parse_user_agent(user_agent)
    assert found is None or 1 <= found.hops <= 8


def test_hops_are_capped():
    assert parse_user_agent("regmesh/1 (origin=cn; hops=9)") == Chain(PlaceName("cn"), 8)
