"""What a real registry says to an index of which parts are left out, and to one made of parts."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.flow.test_agent import Site, open_site
from tests.support import platforms
from tests.support.parts import Distribution

pytestmark = [pytest.mark.real("docker-registry")]
EACH = {name: platforms.image(name) for name in ("linux/amd64", "linux/arm64")}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Its destination is a docker-registry."""
    async with open_site(tmp_path) as found:
        registry = Distribution(tmp_path / "docker-registry")
        try:
            await asyncio.to_thread(registry.start)
            await found.declare("instance", "eu", account="game", region="frankfurt", url=registry.url)
            yield found
        finally:
            await asyncio.to_thread(registry.end)


@pytest.mark.parametrize(
    ("mode", "status", "code"),
    [("full", "Succeed", None), ("rebuilt", "Succeed", None), ("sparse", "Failed", "sparse_refused")],
)
async def test_each_mode_at_docker_registry(site: Site, mode: str, status: str, code: str | None) -> None:
    wanted = {"type": "platform", "value": "linux/arm64", "mode": mode}
    await site.declare("rule", "release", source="cn", destination="eu", filters=[wanted])
    original = await site.push("v1", platforms.index(EACH))
    (end,) = await site.ends(1)
    assert (end.status, end.error.code if end.error else None) == (status, code)
    assert end.rebuilt_from == (original if mode == "rebuilt" else None)
