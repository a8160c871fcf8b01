"""Replicas: filled when they are declared, kept equal from then on, and never across a border."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mesh.control import InvalidDocument
from mesh.log.port import Append
from mesh.registry.builtin.faults import Faults, Stall
from schemas import codec, topics
from schemas.envelope import make_id
from schemas.names import Region, Repository
from schemas.state import StateRecord
from tests.support import images
from tests.support.attached import SBOM, attachment
from tests.support.mesh_site import APP, CLOCK, MeshSite, client, mesh_site, until

REGIONS = [
    {"name": "beijing", "jurisdiction": "cn"},
    {"name": "shanghai", "jurisdiction": "cn"},
    {"name": "frankfurt", "jurisdiction": "global"},
]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[MeshSite]:
    """An instance in Beijing, a registry for its replica in Shanghai, which is not declared yet."""
    async with mesh_site(tmp_path) as found:
        await found.registry("cn", faults=Faults())
        await found.registry("cn@shanghai")
        await found.apply({"regions": REGIONS, "instances": [instance(found)]})
        for region in ("beijing", "shanghai"):
            await found.start_agent(region)
        yield found


def instance(site: MeshSite) -> dict[str, Any]:
    return {"name": "cn", "account": "game", "region": "beijing", "url": site.registries["cn"].url}


def replica(site: MeshSite, region: str = "shanghai") -> dict[str, Any]:
    return {"instance": "cn", "region": region, "url": site.registries["cn@shanghai"].url}


async def test_a_replica_is_filled_and_its_tasks_say_so(site: MeshSite) -> None:
    pushed = {
        f"v{n}": await site.push("cn", f"v{n}", images.image(layers=[bytes([n]) * 5000])) for n in range(5)
    }
    await site.apply({"replicas": [replica(site)]})

    async def filled() -> bool:
        return {tag: await site.digest("cn@shanghai", tag) for tag in pushed} == pushed

    await until(filled)
    entries = await until(lambda: _ended(site, 5))
    assert {(it["replica"], it["rule"], it["trigger"], it["status"]) for it in entries} == {
        ("cn@shanghai", None, "backfill", "Succeed")
    }
    assert all(it["bytes_from"] == {"beijing": it["bytes_transferred"]} for it in entries)
    (execution,) = (await site.get("executions"))["items"]
    assert (execution["rule"], execution["status"], execution["total"]) == ("cn@shanghai", "Succeed", 5)


async def _ended(site: MeshSite, count: int) -> list[dict[str, Any]]:
    found = await site.logs(replica="cn@shanghai")
    over = [it for it in (await site.get("executions"))["items"] if it["status"] != "InProgress"]
    return found if len(found) >= count and over else []


async def test_pushes_indexes_retags_referrers_and_deletions_follow_under_the_same_names(
    site: MeshSite,
) -> None:
    await site.apply({"replicas": [replica(site)]})
    first, second = (images.image(layers=[text]) for text in (b"one", b"two"))
    index = images.index([first, second])
    sbom = attachment(first.manifest, SBOM, b"bill of materials")
    await site.push("cn", "multi", index)
    await site.push("cn", "v1", first)
    await site.push("cn", "latest", first)
    async with client(site.registries["cn"]) as registry:
        await images.push(registry, APP, sbom.digest, sbom)

    async def arrived() -> bool:
        there = {tag: await site.digest("cn@shanghai", tag) for tag in ("multi", "v1", "latest")}
        async with client(site.registries["cn@shanghai"]) as registry:
            about = [it.descriptor.digest for it in await registry.referrers(APP, first.digest)]
        return there == {"multi": index.digest, "v1": first.digest, "latest": first.digest} and about == [
            sbom.digest
        ]

    await until(arrived)
    await site.push("cn", "latest", second)
    async with client(site.registries["cn"]) as registry:
        await registry.delete_manifest(APP, "v1")

    async def followed() -> bool:
        return (await site.digest("cn@shanghai", "latest"), await site.digest("cn@shanghai", "v1")) == (
            second.digest,
            None,
        )

    await until(followed)
    assert await site.digest("cn@shanghai", "multi") == index.digest


async def test_a_replica_that_is_not_declared_any_more_gets_nothing_and_keeps_what_it_has(
    site: MeshSite,
) -> None:
    await site.apply({"replicas": [replica(site)]})
    pushed = await site.push("cn", "v1", images.image(layers=[b"one"]))
    await until(lambda: site.digest("cn@shanghai", "v1"))
    await site.api.request("DELETE", "/api/v1/replicas/cn@shanghai")
    await site.push("cn", "v2", images.image(layers=[b"two"]))
    await site.apply(
        {"rules": [], "instances": [instance(site) | {"name": "other", "url": "http://127.0.0.1:9"}]}
    )
    await site.push("cn", "v3", images.image(layers=[b"three"]))
    assert await site.digest("cn@shanghai", "v1") == pushed
    assert await site.digest("cn@shanghai", "v2") is None


async def test_foreign_content_is_reported_and_overwritten_only_on_demand(site: MeshSite) -> None:
    await site.push("cn@shanghai", "v1", images.image(layers=[b"somebody else's"]))
    ours = await site.push("cn", "v1", images.image(layers=[b"ours"]))
    await site.apply({"replicas": [replica(site)]})
    (entry,) = await until(lambda: _ended(site, 1))
    assert (entry["status"], entry["error"]["code"]) == ("Skipped", "other_content")
    assert "regmesh sync cn@shanghai --repository game/app" in entry["error"]["message"]
    assert await site.digest("cn@shanghai", "v1") != ours
    failed = await until(lambda: _in_state(site, "Failed"))
    assert failed["reason"].startswith("1 tag holds other content than the instance")
    (finding,) = [one for one in (await site.get("doctor"))["items"] if one["about"] == "replica/cn@shanghai"]
    assert "`regmesh sync cn@shanghai --repository NAME` overwrites them" in finding["advice"]
    await site.api.request("POST", "/api/v1/executions", body={"rule": "cn@shanghai", "repository": str(APP)})

    async def ours_is_there() -> bool:
        return await site.digest("cn@shanghai", "v1") == ours

    await until(ours_is_there)
    assert (await until(lambda: _in_state(site, "Synced")))["reason"] is None


async def _in_state(site: MeshSite, state: str) -> dict[str, Any] | None:
    found: dict[str, Any] = await site.get("replicas/cn@shanghai")
    return found if found["state"] == state else None


@pytest.mark.parametrize(
    ("changes", "where", "what"),
    [
        ({"region": "frankfurt"}, "replicas[0].region", "stays in its instance's jurisdiction"),
        ({"region": "beijing"}, "replicas[0].region", "is the region of 'cn' itself"),
        ({"instance": "nc"}, "replicas[0].instance", "no instance is named 'nc'; declared are: cn"),
        ({"name": "cn@beijing"}, "replicas[0]", "is named cn@shanghai"),
        ({"kind": "harbor"}, "replicas[0].kind", "unknown field"),
    ],
)
async def test_what_no_replica_may_be_is_refused(
    site: MeshSite, changes: dict[str, str], where: str, what: str
) -> None:
    with pytest.raises(InvalidDocument) as caught:
        await site.apply({"replicas": [replica(site) | changes]})
    assert what in {problem.where: problem.message for problem in caught.value.problems}[where]


async def test_no_later_declaration_parts_a_replica_from_its_instance(site: MeshSite) -> None:
    await site.apply({"replicas": [replica(site)]})
    with pytest.raises(InvalidDocument, match="replica/cn@shanghai would not be allowed any more"):
        await site.apply({"regions": [{"name": "shanghai", "jurisdiction": "global"}]})


async def test_the_border_is_asked_again_when_an_event_is_matched(site: MeshSite) -> None:
    await site.apply({"replicas": [replica(site)]})
    await _move_shanghai(site)
    await site.push("cn", "v1", images.image(layers=[b"stays"]), Repository("game/secret"))
    entries = await until(
        lambda: site.logs(repository="game/secret")
    )  # of the push, it may be of the fill too
    assert {(entry["status"], entry["error"]["code"]) for entry in entries} == {("Skipped", "boundary")}
    assert await site.digest("cn@shanghai", "v1", Repository("game/secret")) is None


async def test_the_border_is_asked_again_before_the_tag_is_written(site: MeshSite) -> None:
    """The event was matched, and a layer is on its way, when the region moves."""
    await site.apply({"replicas": [replica(site)]})
    await until(lambda: _in_state(site, "Synced"))
    image = images.image(layers=[b"on its way"])
    faults = site.registries["cn"].faults
    faults.stall = stall = Stall(image.blob_descriptors[-1].digest)
    await site.push("cn", "v1", image)

    async def is_running() -> Any:
        return await site.logs(status="InProgress")

    await until(is_running)
    await _move_shanghai(site)
    stall.over.set()
    (entry,) = await until(site.logs)
    assert (entry["status"], entry["error"]["code"]) == ("Skipped", "boundary")
    assert await site.digest("cn@shanghai", "v1") is None


async def _move_shanghai(site: MeshSite) -> None:
    """As when what is declared was written by another version: the log itself says what nobody may declare."""
    value = {"name": "shanghai", "jurisdiction": "global"}
    record = StateRecord(id=make_id("moved"), time=CLOCK.now(), noun="region", value=value)
    await site.node.log.append([Append(topics.STATE, "region/shanghai", codec.encode(record))])
    moved = Region("shanghai")

    async def is_known() -> bool:
        found = site.node.state.region(moved)
        return found is not None and found.jurisdiction == "global"

    await until(is_known)
