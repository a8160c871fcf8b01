"""What a push of ours tells its registry of where the content came from, and what is believed of a User-Agent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.registry.chain import heard, told
from mesh.registry.port import Chain
from mesh.registry.transport import USER_AGENT
from schemas.names import PlaceName


@given(st.sampled_from(["cn", "game-cn", "game-cn@shanghai"]), st.integers(0, 8))
def test_what_was_told_is_heard(origin, hops):
    chain = Chain(PlaceName(origin), hops)
    assert heard(told(USER_AGENT, chain)) == chain


@pytest.mark.parametrize(
    "user_agent",
    [None, 3, "", "docker/24", USER_AGENT, "regmesh/1 (origin=; hops=1)", "regmesh/1 (origin=NOT; hops=1)",
     "regmesh/1 (origin=cn; hops=12)", "x regmesh/1 (origin=cn; hops=1)", "regmesh/1 (origin=cn; hops=1) x"],
)  # fmt: skip
def test_what_is_not_ours_is_nobodys_chain(user_agent):
    assert heard(user_agent) is None


@given(st.text())
def test_no_text_is_too_strange(user_agent):
    heard(user_agent)


def test_more_hops_than_there_may_be_are_the_most():
    assert heard("regmesh/1 (origin=cn; hops=9)") == Chain(PlaceName("cn"), 8)
