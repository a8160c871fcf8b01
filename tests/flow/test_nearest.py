"""Chains of rules and replicas, and where bytes are read: from the nearest place that has them and may be read."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from consumer.settings import TransferLimits
from mesh.control import InvalidDocument
from tests.support import images
from tests.support.mesh_site import APP, QUICK, MeshSite, client, mesh_site, until

MIB = 1024 * 1024
REGIONS = {"beijing": "cn", "shanghai": "cn", "frankfurt": "global", "virginia": "global"}
RULE = {
    "name": "release", "source": "cn", "destination": "eu",
    "filters": [{"type": "tag", "value": "*-global"}],
}  # fmt: skip


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[MeshSite]:
    """An instance on each side of a border, with a replica each, and a rule from one to the other."""
    async with mesh_site(tmp_path) as found:
        for place in ("cn", "cn@shanghai", "eu", "eu@virginia"):
            await found.registry(place)
        await found.apply(document(found))
        await found.until_fills_are_listed()
        for region in REGIONS:
            await found.start_agent(region)
        yield found


def document(site: MeshSite, links: dict[str, Any] | None = None) -> dict[str, Any]:
    url = {place: registry.url for place, registry in site.registries.items()}
    return {
        "regions": [
            {"name": name, "jurisdiction": border, "links": (links or {}).get(name, [])}
            for name, border in REGIONS.items()
        ],
        "instances": [
            {"name": "cn", "account": "game", "region": "beijing", "url": url["cn"]},
            {"name": "eu", "account": "game", "region": "frankfurt", "url": url["eu"]},
        ],
        "replicas": [
            {"instance": "cn", "region": "shanghai", "url": url["cn@shanghai"]},
            {"instance": "eu", "region": "virginia", "url": url["eu@virginia"]},
        ],
        "rules": [RULE],
    }


async def at(site: MeshSite, place: str, tag: str, digest: object) -> bool:
    return await site.digest(place, tag) == digest


async def test_a_copy_into_an_instance_continues_to_its_replicas_and_the_log_shows_the_chain(
    site: MeshSite,
) -> None:
    digest = await site.push("cn", "v1-global", images.image(layers=[os.urandom(1000)]))
    await until(lambda: at(site, "eu@virginia", "v1-global", digest))
    entries = await until(lambda: _of(site, "v1-global", 3))
    chain = {it["destination"].partition("/")[0]: (it["origin"], it["hops"]) for it in entries}
    assert chain == {"cn@shanghai": ("cn", 0), "eu": ("cn", 0), "eu@virginia": ("cn", 1)}


async def _of(site: MeshSite, tag: str, count: int) -> list[dict[str, Any]]:
    found = await site.logs(tag=tag, status="Succeed")
    return found if len(found) >= count else []


async def test_without_a_rule_nothing_leaves_its_jurisdiction(site: MeshSite) -> None:
    digest = await site.push("cn", "v1-mainland", images.image(layers=[os.urandom(1000)]))
    await until(lambda: at(site, "cn@shanghai", "v1-mainland", digest))
    follower = await site.push("cn", "v2-global", images.image(layers=[os.urandom(1000)]))
    await until(lambda: at(site, "eu@virginia", "v2-global", follower))
    assert [await site.digest(place, "v1-mainland") for place in ("eu", "eu@virginia")] == [None, None]
    for place in ("eu", "eu@virginia"):
        async with client(site.registries[place]) as registry:
            assert [tag async for tag in registry.tags(APP)] == ["v2-global"]


async def test_a_task_reads_from_the_nearest_replica_instead_of_the_distant_source(site: MeshSite) -> None:
    """The rule's destination is in the region of the source's replica, which holds the image."""
    near = await site.registry("team")
    digest = await site.push("cn", "v1", images.image(layers=[os.urandom(MIB)]))
    await until(lambda: at(site, "cn@shanghai", "v1", digest))
    pulled = site.registries["cn"].traffic.pulls.total()
    await site.apply({
        "instances": [{"name": "team", "account": "game", "region": "shanghai", "url": near.url}],
        "rules": [{"name": "to-team", "source": "cn", "destination": "team", "trigger": {"type": "manual"}}],
    })  # fmt: skip
    await site.api.request("POST", "/api/v1/executions", body={"rule": "to-team"})
    await until(lambda: at(site, "team", "v1", digest))
    (entry,) = await until(lambda: _by(site, "to-team"))
    assert entry["bytes_from"] == {"shanghai": entry["bytes_total"]}
    assert site.registries["cn"].traffic.pulls.total() == pulled


async def _by(site: MeshSite, rule: str) -> list[dict[str, Any]]:
    return await site.logs(rule=rule)


async def test_when_a_near_place_fails_the_origin_is_read_at_once(site: MeshSite) -> None:
    near = await site.registry("team")
    digest = await site.push("cn", "v1", images.image(layers=[os.urandom(MIB)]))
    await until(lambda: at(site, "cn@shanghai", "v1", digest))
    await site.apply({
        "instances": [{"name": "team", "account": "game", "region": "shanghai", "url": near.url}],
        "rules": [{"name": "to-team", "source": "cn", "destination": "team", "trigger": {"type": "manual"}}],
    })  # fmt: skip
    await site.registries["cn@shanghai"].stop()
    await site.api.request("POST", "/api/v1/executions", body={"rule": "to-team"})
    await until(lambda: at(site, "team", "v1", digest))
    (entry,) = await until(lambda: _by(site, "to-team"))
    assert (entry["status"], entry["bytes_from"]) == ("Succeed", {"beijing": entry["bytes_total"]})


async def test_layers_are_prefetched_for_a_rule_with_prefetch(site: MeshSite) -> None:
    near = await site.registry("team")
    await site.apply({
        "instances": [{"name": "team", "account": "game", "region": "shanghai", "url": near.url}],
        "rules": [{"name": "to-team", "source": "cn", "destination": "team", "prefetch": True}],
    })  # fmt: skip
    image = images.image(layers=[os.urandom(MIB)])
    layer = image.blob_descriptors[1]
    async with client(site.registries["cn"]) as registry:
        await registry.write_blob(APP, layer, images._once(image.blobs[layer.digest]))

    async def there() -> bool:
        async with client(near) as registry:
            return await registry.blob_size(APP, layer.digest) == layer.size

    await until(there)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({}, "never leaves a jurisdiction"),
        ({"filters": [{"type": "tag", "value": "*"}], "destination": "team"}, "works with name filters only"),
        ({"destination": "other"}, "never leaves an account"),
        ({"destination": "team", "trigger": {"type": "manual"}}, "works only for event_based rules"),
    ],
)
async def test_prefetch_is_refused_where_it_could_leak(
    site: MeshSite, changes: dict[str, Any], what: str
) -> None:
    instances = [
        {"name": "team", "account": "game", "region": "shanghai", "url": "http://127.0.0.1:1"},
        {"name": "other", "account": "other", "region": "shanghai", "url": "http://127.0.0.1:2"},
    ]
    rule = {"name": "early", "source": "cn", "destination": "eu", "prefetch": True} | changes
    with pytest.raises(InvalidDocument) as caught:
        await site.apply({"instances": instances, "rules": [rule]})
    messages = [problem.message for problem in caught.value.problems if problem.where == "rules[0].prefetch"]
    assert any(what in message for message in messages)


async def test_layers_over_the_prefetch_budget_wait_for_their_manifest(tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"transfers": TransferLimits(prefetch_bytes=MIB)})
    async with mesh_site(tmp_path, settings) as site:
        for place in ("cn", "cn@shanghai", "eu", "eu@virginia"):
            await site.registry(place)
        await site.apply(document(site))
        await site.until_fills_are_listed()
        await site.start_agent("shanghai")
        image = images.image(layers=[os.urandom(MIB // 2), os.urandom(MIB)])
        small, large = image.blob_descriptors[1:]
        replica = site.registries["cn@shanghai"]
        async with client(site.registries["cn"]) as registry, client(replica) as there:
            for blob in (small, large):
                await registry.write_blob(APP, blob, images._once(image.blobs[blob.digest]))
            await until(lambda: there.blob_size(APP, small.digest))
            await site.registries["cn"].drained()
            assert await there.blob_size(APP, large.digest) is None
            assert site.agents["shanghai"][0]._ports.metrics.prefetch_bytes._value.get() == small.size
        digest = await site.push("cn", "v1", image)
        await until(lambda: at(site, "cn@shanghai", "v1", digest))
        (entry,) = await until(lambda: _of(site, "v1", 1))
        assert entry["bytes_transferred"] == entry["bytes_total"]
