"""Locations of images and the state of replicas, while registries and agents fail and recover."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from typer import BadParameter

from mesh.clock import SystemClock
from mesh.node.cli.control_client import ApiError
from mesh.node.cli.images import parse_tagged_image
from mesh.node.cli.wait import ArrivalWaiter
from tests.support import images
from tests.support.attached import SBOM, attachment
from tests.support.mesh_site import APP, MeshSite, client, mesh_site, until

REGIONS = [{"name": name, "jurisdiction": "cn"} for name in ("beijing", "shanghai", "chengdu")]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[MeshSite]:
    """An instance in Beijing with replicas in Shanghai and Chengdu, all agents running, nothing pushed."""
    async with mesh_site(tmp_path) as found:
        for place in ("cn", "cn@shanghai", "cn@chengdu", "shop"):
            await found.registry(place)
        await found.apply(document(found))
        await found.until_fills_are_listed()
        for region in ("beijing", "shanghai", "chengdu"):
            await found.start_agent(region)
        yield found


def document(site: MeshSite) -> dict[str, Any]:
    url = {place: registry.url for place, registry in site.registries.items()}
    return {
        "regions": REGIONS,
        "instances": [
            {"name": "cn", "account": "game", "region": "beijing", "url": url["cn"]},
            {"name": "shop", "account": "game", "region": "chengdu", "url": url["shop"]},
        ],
        "replicas": [
            {"instance": "cn", "region": region, "url": url[f"cn@{region}"]} for region in ("shanghai", "chengdu")
        ],
        "rules": [
            {
                "name": "to-shop", "source": "cn", "destination": "shop", "destination_namespace": "bought",
                "filters": [{"type": "tag", "value": "v*"}],
            }
        ],
    }  # fmt: skip


async def where(site: MeshSite, tag: str) -> dict[str, Any]:
    (item,) = (await site.get(f"images/cn/{APP}", tag=tag))["items"]
    return item | {"by": {row["place"]: row for row in item["places"]}}


async def states(site: MeshSite, tag: str) -> dict[str, tuple[str, str | None]]:
    return {name: (row["state"], row["seen_by"]) for name, row in (await where(site, tag))["by"].items()}


async def replica(site: MeshSite, region: str) -> dict[str, Any]:
    found: dict[str, Any] = await site.get(f"replicas/cn@{region}")
    return found


def wait_for(site: MeshSite, tag: str, *regions: str, digest: str | None = None) -> ArrivalWaiter:
    return ArrivalWaiter(site.api, *parse_tagged_image(f"cn/{APP}:{tag}"), regions, digest, SystemClock())


async def test_where_shows_every_place_of_an_image_with_its_digest(site: MeshSite) -> None:
    image = images.image(layers=[b"app"])
    sbom = attachment(image.manifest, SBOM, b"parts")
    async with client(site.registries["cn"]) as registry:
        await images.push(registry, APP, image.digest, image)
        await images.push(registry, APP, sbom.digest, sbom)
    await site.push("cn", "v1", image)
    everywhere = {
        "cn": ("current", "agent"), "shop": ("current", "agent"),
        "cn@chengdu": ("current", "agent"), "cn@shanghai": ("current", "agent"),
    }  # fmt: skip

    async def all_current() -> bool:
        return await states(site, "v1") == everywhere

    await until(all_current)
    found = await where(site, "v1")
    assert (found["digest"], found["note"]) == (image.digest, None)
    rows = found["by"]
    assert {row["digest"] for row in found["places"]} == {image.digest}
    assert (rows["shop"]["repository"], rows["shop"]["region"], rows["shop"]["rules"]) == (
        "bought/app", "chengdu", ["to-shop"],
    )  # fmt: skip
    assert rows["cn@shanghai"]["repository"] == APP
    assert all(row["lag_ms"] >= 0 for row in found["places"])

    async def counted() -> bool:
        by = (await where(site, "v1"))["by"]
        return [by[name]["referrers"] for name in ("shop", "cn@chengdu", "cn@shanghai", "cn")] == [
            1,
            1,
            1,
            None,
        ]

    await until(counted)
    await site.push("cn", "dev", image)  # no rule copies it to the shop
    await until(lambda: site.digest("cn@shanghai", "dev"))
    assert "shop" not in (await where(site, "dev"))["by"]


async def test_tags_are_paged_by_name_and_deleted_ones_disappear(site: MeshSite) -> None:
    for tag in ("v1", "v2", "v3"):
        await site.push("cn", tag, images.image(layers=[tag.encode()]))

    async def all_there() -> bool:
        page = await site.get(f"images/cn/{APP}")
        return [it["tag"] for it in page["items"]] == ["v1", "v2", "v3"]

    await until(all_there)
    first = await site.get(f"images/cn/{APP}", limit="2")
    assert [it["tag"] for it in first["items"]] == ["v1", "v2"]
    rest = await site.get(f"images/cn/{APP}", limit="2", cursor=first["next"])
    assert ([it["tag"] for it in rest["items"]], rest["next"]) == (["v3"], None)
    for place in ("cn@shanghai", "cn@chengdu"):
        await until(lambda place=place: site.digest(place, "v2"))
    async with client(site.registries["cn"]) as registry:
        await registry.delete_manifest(APP, "v2")

    async def is_deleted() -> bool:
        found = await where(site, "v2")
        by = found["by"]
        return found["digest"] is None and not by["cn@shanghai"]["digest"] and not by["cn@chengdu"]["digest"]

    await until(is_deleted)
    assert "it is not known that cn holds this tag" in (await where(site, "v2"))["note"]


async def test_a_deleted_manifest_deletes_all_its_tags(site: MeshSite) -> None:
    """The notification names no tag: the deletion task reports that neither side has the tags any more."""
    deleted, kept = images.image(layers=[b"deleted"]), images.image(layers=[b"kept"])
    for tag, image in (("v1", deleted), ("latest", deleted), ("v2", kept)):
        await site.push("cn", tag, image)
    for tag, image in (("v1", deleted), ("latest", deleted), ("v2", kept)):
        await until(lambda tag=tag, image=image: _is_everywhere(site, tag, image.digest))
    async with client(site.registries["cn"]) as registry:
        await registry.delete_manifest(APP, deleted.digest)

    async def forgotten() -> bool:
        found = [await where(site, tag) for tag in ("v1", "latest")]
        return all(
            one["digest"] is None and one["by"][place]["digest"] is None
            for one in found
            for place in ("cn", "cn@shanghai", "cn@chengdu")
        )

    await until(forgotten)
    assert await _is_everywhere(site, "v2", kept.digest)


async def _is_everywhere(site: MeshSite, tag: str, digest: str) -> bool:
    by = (await where(site, tag))["by"]
    return all(by[place]["digest"] == digest for place in ("cn", "cn@shanghai", "cn@chengdu"))


async def test_the_fill_finds_images_that_no_notification_announced(tmp_path: Path) -> None:
    async with mesh_site(tmp_path) as site:
        for place in ("cn@silent", "cn@shanghai", "cn@chengdu", "shop"):
            await site.registry(place)
        site.registries["cn"] = site.registries["cn@silent"]  # it sends no notifications
        digest = await site.push("cn", "v1", images.image(layers=[b"old"]))
        await site.apply(document(site))
        await site.until_fills_are_listed()
        await site.start_agent("shanghai")

        async def known() -> bool:
            return (await states(site, "v1"))["cn@shanghai"] == ("current", "agent")

        await until(known)
        found = await where(site, "v1")
        assert (found["digest"], found["by"]["cn"]["seen_by"]) == (digest, "agent")
        assert found["by"]["cn@chengdu"]["state"] == "missing"


async def test_an_unreachable_replica_fails_with_growing_lag_and_delays_no_other(
    site: MeshSite,
) -> None:
    await until(lambda: _in_state(site, "shanghai", "Synced"))
    port = urlsplit(site.registries["cn@shanghai"].url).port
    assert port is not None
    await site.registries["cn@shanghai"].stop()
    digest = await site.push("cn", "v1", images.image(layers=[b"one"]))
    await wait_for(site, "v1", "chengdu", digest=digest).wait(20)
    assert await site.digest("cn@chengdu", "v1") == digest

    async def behind() -> Any:
        found = await _in_state(site, "shanghai", "Failed")
        return found if found and found["tasks_left"] else None

    first = await until(behind)
    assert "answer" in first["reason"] or "refused" in first["reason"] or "connect" in first["reason"]
    await asyncio.sleep(0.6)
    later = await replica(site, "shanghai")
    assert (later["state"], later["tasks_left"]) == ("Failed", 1)
    assert later["lag_seconds"] > first["lag_seconds"] > 0
    (finding,) = [it for it in (await site.get("doctor"))["items"] if it["about"] == "replica/cn@shanghai"]
    assert (finding["severity"], finding["message"]) == ("problem", later["reason"])
    left = await wait_for(site, "v1", "shanghai", digest=digest).wait(0)
    assert left == [f"shanghai: cn@shanghai does not have it: Failed: {later['reason']}"]
    assert (await replica(site, "chengdu"))["state"] == "Synced"

    await site.registries["cn@shanghai"].start(port=port)
    assert await wait_for(site, "v1", "shanghai", digest=digest).wait(20) == []
    synced = await until(lambda: _in_state(site, "shanghai", "Synced"))
    assert (synced["lag_seconds"], synced["tasks_left"], synced["reason"]) == (0.0, 0, None)


async def _in_state(site: MeshSite, region: str, state: str) -> dict[str, Any] | None:
    found = await replica(site, region)
    return found if found["state"] == state else None


async def test_a_replica_without_an_agent_fails_and_its_lag_grows(site: MeshSite) -> None:
    await until(lambda: _in_state(site, "shanghai", "Synced"))
    await site.stop_agent("shanghai")
    digest = await site.push("cn", "v1", images.image(layers=[b"one"]))
    failed = await until(lambda: _in_state(site, "shanghai", "Failed"))
    assert failed["reason"] == "no agent runs in region shanghai"
    agents = {region["name"]: region["agents"] for region in (await site.get("regions"))["items"]}
    assert (agents["shanghai"], agents["chengdu"]) == (0, 1)
    await asyncio.sleep(0.1)
    assert (await replica(site, "shanghai"))["lag_seconds"] > failed["lag_seconds"]
    (left,) = await wait_for(site, "v1", "shanghai").wait(0.3)
    assert left == "shanghai: cn@shanghai does not have it: no agent runs in region shanghai"
    await site.start_agent("shanghai")
    assert await wait_for(site, "v1", digest=digest).wait(20) == []
    await until(lambda: _in_state(site, "shanghai", "Synced"))


async def test_the_history_of_a_replica_comes_from_the_sync_log(site: MeshSite) -> None:
    await site.push("cn", "v1", images.image(layers=[b"one"]))

    async def ended() -> Any:
        return (await site.get("replicas/cn@shanghai/tasks", status="Succeed"))["items"]

    (entry,) = await until(ended)
    assert (entry["replica"], entry["rule"], entry["tag"]) == ("cn@shanghai", None, "v1")
    synced = await until(lambda: _in_state(site, "shanghai", "Synced"))
    assert (synced["fill"]["status"], synced["fill"]["total"]) in (("Succeed", 0), ("Succeed", 1))
    with pytest.raises(ApiError, match="is not declared"):
        await site.get("replicas/cn@nowhere/tasks")
    with pytest.raises(ApiError, match="unknown parameter"):
        await site.get("replicas/cn@shanghai/tasks", replica="cn@chengdu")


async def test_usage_sums_up_what_was_sent(site: MeshSite) -> None:
    image = images.image(layers=[b"x" * 5000])
    await site.push("cn", "v1", image)
    assert await wait_for(site, "v1", digest=image.digest).wait(20) == []

    async def all_ended() -> Any:
        found = await site.get("usage", since="1h")
        return found if {one["rule"] or one["replica"] for one in found["rules"]} == names else None

    names = {"to-shop", "cn@shanghai", "cn@chengdu"}
    found = await until(all_ended)
    sizes = sum(blob.size for blob in image.blob_descriptors)
    (account,) = found["accounts"]
    assert (account["account"], account["bytes"]) == ("game", sum(link["bytes"] for link in found["links"]))
    received = Counter[str]()
    for link in found["links"]:  # from beijing, or from a nearer replica that has it already
        received[link["to"]] += link["bytes"]
    assert received == {"shanghai": sizes, "chengdu": 2 * sizes}  # one replica each, and the shop
    assert sum(link["bytes"] for link in found["links"] if link["from"] == "beijing") >= sizes


async def test_a_replica_as_shown_can_be_put_back_and_gauges_follow(site: MeshSite) -> None:
    shown = await until(lambda: _in_state(site, "shanghai", "Synced"))
    again = await site.api.request("PUT", "/api/v1/replicas/cn@shanghai", body=shown)
    assert again["url"] == shown["url"]
    replicas, gauges = site.control._replicas, site.node.metrics.registry
    await replicas.update_gauges()
    assert replicas._in_gauges == {"cn@shanghai", "cn@chengdu"}
    labels = {"replica": "cn@shanghai"}
    assert gauges.get_sample_value("regmesh_replica_lag_seconds", labels) == 0.0
    assert {
        state: gauges.get_sample_value("regmesh_replica_state", {**labels, "state": state})
        for state in ("Syncing", "Synced", "Failed")
    } == {"Syncing": 0, "Synced": 1, "Failed": 0}
    await site.api.request("DELETE", "/api/v1/replicas/cn@shanghai")
    await replicas.update_gauges()
    assert replicas._in_gauges == {"cn@chengdu"}
    assert gauges.get_sample_value("regmesh_replica_lag_seconds", labels) is None


async def test_invalid_queries_are_reported(site: MeshSite) -> None:
    for path, query, why in (
        (f"images/unknown/{APP}", {}, "no instance is named"),
        (f"images/cn@shanghai/{APP}", {}, "no instance is named"),
        (f"images/cn/{APP}", {"tag": "v1,!"}, "tag: "),
        (f"images/cn/{APP}", {"cursor": "!"}, "cursor: "),
        ("images/cn/UPPER", {}, "not a repository name"),
        ("usage", {"since": "soon"}, "since: "),
    ):
        with pytest.raises(ApiError, match=why):
            await site.get(path, **query)
    with pytest.raises(BadParameter, match="no place in oslo should hold the image"):
        await wait_for(site, "v1", "oslo").wait(0)
    (left,) = await wait_for(site, "none", "shanghai").wait(0)
    assert left == (
        "shanghai: cn@shanghai does not have it: it is not known which digest the instance's tag names; "
        "name one with --digest"
    )


async def test_on_a_terminal_the_progress_of_waiting_is_one_line(
    site: MeshSite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = await site.push("cn", "v1", images.image(layers=[b"one"]))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert await wait_for(site, "v1", "chengdu", "shanghai", digest=digest).wait(20) == []
    shown = capsys.readouterr().err
    assert shown.endswith("\r\x1b[K3 of 3 places have it\n")
    assert shown.count("\n") == 1
    await until(lambda: _in_state(site, "shanghai", "Synced"))
    (left,) = await wait_for(site, "v2", "shanghai", digest=digest).wait(0)
    assert "it has no such tag" in left
    assert capsys.readouterr().err == "\r\x1b[K0 of 1 places have it; waiting for cn@shanghai unknown\n"
