"""The short form of `make soak`: a replica is filled through three kills, and both sides end equal."""

from pathlib import Path

import pytest

from tests.soak import fill

pytestmark = [pytest.mark.real("docker-registry")]


def test_a_fill_that_is_killed_three_times_ends_equal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        found = fill.run(
            tmp_path, repositories=20, tags=10, kills=3, report=lambda text: print(f"\n{text}", end="")
        )
    assert (found.tags, found.kills) == (200, 3)
    assert found.differences == []
