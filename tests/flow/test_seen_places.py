"""What was only announced is shown as such, and a replica is `Synced` only when it was compared since the last gap."""

from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mesh.control.executions import returns
from mesh.registry.builtin import BuiltinRegistry
from schemas.names import Digest, Tag
from tests.support import images
from tests.support.mesh_site import APP, CLOCK, MeshSite, client, mesh_site, until
from tests.support.terminal import Terminal, terminal_at

REPLICA = "cn@shanghai"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[MeshSite]:
    """An instance with one replica, which is filled; no agent runs."""
    async with mesh_site(tmp_path) as found:
        for place in ("cn", REPLICA):
            await found.registry(place)
        await found.apply(
            {
                "regions": [{"name": name, "jurisdiction": "cn"} for name in ("beijing", "shanghai")],
                "instances": [
                    {"name": "cn", "account": "a", "region": "beijing", "url": found.registries["cn"].url}
                ],
                "replicas": [{"instance": "cn", "region": "shanghai", "url": found.registries[REPLICA].url}],
            }
        )
        await found.until_fills_are_listed()
        yield found


@pytest.fixture
def terminal(
    site: MeshSite, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Terminal]:
    with terminal_at(site.url, capsys, monkeypatch) as made:
        yield made


async def where(site: MeshSite, tag: str = "v1") -> dict[str, dict[str, Any]]:
    (item,) = (await site.get(f"images/cn/{APP}", tag=tag))["items"]
    return {row["place"]: row for row in item["places"]}


async def state(site: MeshSite) -> tuple[str, str]:
    found = await site.get(f"replicas/{REPLICA}")
    return found["state"], found["reason"] or ""


async def test_a_push_is_announced_until_an_agent_has_seen_it(site: MeshSite, terminal: Terminal) -> None:
    image = images.image(layers=[b"app"])
    await site.push("cn", "v1", image)

    async def is_known() -> bool:
        return (await where(site))["cn"]["digest"] == image.digest

    await until(is_known)
    rows = await where(site)
    assert {name: (row["state"], row["seen_by"], row["seen_at"]) for name, row in rows.items()} == {
        "cn": ("announced", "notification", None),
        REPLICA: ("missing", None, None),
    }
    shown = await terminal("where", f"cn/{APP}:v1", "-o", "wide")
    assert shown.out.splitlines()[0].split()[-2:] == ["SEEN", "AT"]
    assert "announced" in shown.out
    assert "current" not in shown.out

    before = CLOCK.now()
    await site.start_agent("shanghai")

    async def are_seen() -> Any:
        found = await where(site)
        return found if {row["state"] for row in found.values()} == {"current"} else None

    rows = await until(are_seen)
    assert {row["seen_by"] for row in rows.values()} == {"agent"}
    for row in rows.values():
        assert datetime.fromisoformat(row["seen_at"]) >= before - timedelta(seconds=1)
    shown = await terminal("where", f"cn/{APP}:v1", "-o", "wide")
    seen_at = rows[REPLICA]["seen_at"][:19].replace("T", " ")
    assert any(line.endswith(seen_at) for line in shown.out.splitlines() if REPLICA in line)
    assert "SEEN AT" not in (await terminal("where", f"cn/{APP}:v1")).out


async def test_a_replica_is_synced_again_only_after_the_comparison_that_follows_a_gap(
    site: MeshSite, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returns, "_SPACING", timedelta(seconds=1))
    for region in ("beijing", "shanghai"):
        await site.start_agent(region)
    await until(lambda: _in_state(site, "Synced"))
    source = site.registries["cn"]
    await source.stop()
    _, reason = await until(lambda: _in_state(site, "Syncing"))
    assert reason.startswith("its instance's registry has not answered since 2")
    shown = await terminal("get", "replicas")
    assert ("Syncing" in shown.out, reason in shown.out) == (True, True)

    digest = await _push_without_a_notification(site)
    await source.start(port=urlsplit(source.url).port or 0)
    seen = [await state(site)]
    while seen[-1][0] != "Synced":
        found = await state(site)
        seen += [found] if found != seen[-1] else []
    assert await site.digest(REPLICA, "v1") == digest
    assert any(
        why.startswith("comparing after its instance's registry did not answer from") for _, why in seen
    )


async def _in_state(site: MeshSite, wanted: str) -> tuple[str, str] | None:
    found = await state(site)
    return found if found[0] == wanted else None


async def _push_without_a_notification(site: MeshSite) -> Digest:
    """As a registry does that is killed before it could send it."""
    image, forgetful = images.image(layers=[b"lost"]), BuiltinRegistry(site.folder / "cn", clock=CLOCK)
    await forgetful.start()
    async with client(forgetful) as registry:
        await images.push(registry, APP, Tag("v1"), image)
    await forgetful.stop()
    return image.digest
