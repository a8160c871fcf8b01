"""The short form of `make simulate`: whatever happens to a mesh, it ends equal, with nothing half there on the way."""

import pytest

from tests.simulation.run import simulate


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_mesh_to_which_anything_happened_is_equal_again(seed: int) -> None:
    happened: list[str] = []
    assert await simulate(seed, 40, happened.append) == [], "\n".join(happened)
    assert len(happened) > 20
