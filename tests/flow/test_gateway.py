"""The gateway over whole meshes: who serves, who comes next, and what is never served."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, web
from structlog.testing import capture_logs
from yarl import URL

from mesh.gateway import GatewayOptions
from mesh.registry.builtin.faults import Cut, Fail, Faults, Lie, Throttle
from schemas import topics
from schemas.codec import decode, kind_of
from schemas.executions import ExecutionStart
from schemas.names import Repository
from tests.support import images
from tests.support.gateway_site import HUB, GatewaySite, gateway
from tests.support.mesh_site import APP, MeshSite, client, mesh_site, until
from tests.support.registries import stub

REGIONS = [
    {"name": "beijing", "jurisdiction": "cn"},
    {"name": "shanghai", "jurisdiction": "cn"},
    {"name": "frankfurt", "jurisdiction": "global"},
]
BIG = os.urandom(3 * 1024 * 1024)


def instance(site: MeshSite, name: str, region: str = "beijing", **more: Any) -> dict[str, Any]:
    url = site.registries[name].url
    return {"name": name, "account": "game", "region": region, "url": url, "domain": HUB} | more


def replica(site: MeshSite, name: str, region: str) -> dict[str, Any]:
    return {"instance": name, "region": region, "url": site.registries[f"{name}@{region}"].url}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[MeshSite]:
    """An instance in Beijing with a replica in Shanghai; nothing is copied unless a test starts an agent."""
    async with mesh_site(tmp_path) as found:
        await found.registry("cn", faults=Faults())
        await found.registry("cn@shanghai", faults=Faults())
        await found.apply(
            {
                "regions": REGIONS,
                "instances": [instance(found, "cn")],
                "replicas": [replica(found, "cn", "shanghai")],
            }
        )
        await found.until_fills_are_listed()
        yield found


@pytest.fixture
async def hub(site: MeshSite, request: pytest.FixtureRequest) -> AsyncIterator[GatewaySite]:
    """A gateway in Shanghai; an indirect parameter gives it other limits."""
    async with gateway(site, "shanghai", **getattr(request, "param", {})) as found:
        yield found


async def both(site: MeshSite, tag: str, image: images.Image) -> images.Image:
    for place in ("cn", "cn@shanghai"):
        await site.push(place, tag, image)
    return image


def manifests(site: MeshSite, place: str) -> int:
    return sum(site.registries[place].traffic.requests[method, "manifest"] for method in ("GET", "HEAD"))


async def test_a_pull_reads_everything_from_the_local_replica_byte_for_byte(
    site: MeshSite, hub: GatewaySite
) -> None:
    image = await both(site, "v1", images.image(layers=[BIG]))
    before = manifests(site, "cn")
    base = await hub.ask("")
    assert (base.status, base.headers["Docker-Distribution-Api-Version"]) == (200, "registry/2.0")
    for method in ("GET", "HEAD"):
        found = await hub.ask(f"{APP}/manifests/v1", method)
        assert found.status == 200
        assert found.headers["Docker-Content-Digest"] == image.digest
        assert found.headers["Content-Type"] == image.manifest.media_type
        assert int(found.headers["Content-Length"]) == len(image.manifest.body)
        assert found.body == (image.manifest.body if method == "GET" else b"")
    layer = next(digest for digest, body in image.blobs.items() if body == BIG)
    whole = await hub.ask(f"{APP}/blobs/{layer}")
    assert whole.body == BIG
    part = await hub.ask(f"{APP}/blobs/{layer}", Range="bytes=1000-1999")
    assert (part.status, part.body) == (206, BIG[1000:2000])
    assert part.headers["Content-Range"] == f"bytes 1000-1999/{len(BIG)}"
    assert (await hub.ask(f"{APP}/blobs/{layer}", "HEAD")).headers["Content-Length"] == str(len(BIG))
    assert b'"v1"' in (await hub.ask(f"{APP}/tags/list")).body
    assert (await hub.ask(f"{APP}/referrers/{image.digest}")).status == 200
    assert manifests(site, "cn") == before
    assert hub.count("requests_total", place="cn@shanghai", status="200") >= 5
    assert hub.count("bytes_total", place="cn@shanghai") == len(BIG) + 1000 + len(image.manifest.body) + len(
        (await hub.ask(f"{APP}/tags/list")).body
    ) + len((await hub.ask(f"{APP}/referrers/{image.digest}")).body)


async def test_pages_of_tags_stay_behind_the_gateway(site: MeshSite, hub: GatewaySite) -> None:
    image = images.image(layers=[b"one"])
    for tag in ("a", "b", "c"):
        await both(site, tag, image)
    first = await hub.ask(f"{APP}/tags/list?n=2")
    link = first.headers["Link"]
    assert link.startswith("</v2/")
    second = await hub.ask(link[1 : link.index(">")])
    assert (b'"a"' in first.body, b'"c"' in second.body) == (True, True)


async def test_while_the_nearest_registry_is_down_the_next_nearest_serves(
    site: MeshSite, hub: GatewaySite
) -> None:
    image = await both(site, "v1", images.image(layers=[b"one"]))
    near = site.registries["cn@shanghai"]
    port = int(near.url.rpartition(":")[2])
    await near.stop()
    assert (await hub.ask(f"{APP}/manifests/v1")).body == image.manifest.body
    assert hub.count("requests_total", place="cn", status="200") == 1
    assert hub.count("place_up", place="cn@shanghai") == 0
    await near.start(port=port)

    async def is_back() -> bool:
        return hub.count("place_up", place="cn@shanghai") == 1

    await until(is_back)
    await hub.ask(f"{APP}/manifests/v1")
    assert hub.count("requests_total", place="cn@shanghai", status="200") == 1


async def test_a_broken_stream_is_resumed_from_the_next_place_unnoticed_by_the_client(
    site: MeshSite, hub: GatewaySite
) -> None:
    image = await both(site, "v1", images.image(layers=[BIG]))
    layer = next(digest for digest, body in image.blobs.items() if body == BIG)
    site.registries["cn@shanghai"].faults.cut = Cut(1, 1024 * 1024)
    assert (await hub.ask(f"{APP}/blobs/{layer}")).body == BIG
    assert hub.count("resumed_total", place="cn@shanghai") == 1
    assert hub.count("bytes_total", place="cn") > 0
    site.registries["cn@shanghai"].faults.cut = Cut(1, 1024 * 1024)
    site.registries["cn"].faults.cut = Cut(1, 1024 * 512)

    async def both_are_up() -> bool:
        return hub.count("place_up", place="cn@shanghai") == 1

    await until(both_are_up)
    part = await hub.ask(f"{APP}/blobs/{layer}", Range=f"bytes=100-{len(BIG) - 101}")
    assert part.body == BIG[100:-100]


async def test_a_stream_that_no_place_can_resume_is_cut_and_never_looks_complete(
    site: MeshSite, hub: GatewaySite
) -> None:
    await site.push("cn@shanghai", "v1", images.image(layers=[BIG]))
    layer = images.image(layers=[BIG]).blob_descriptors[-1].digest
    site.registries["cn@shanghai"].faults.cut = Cut(100, 64 * 1024)
    with pytest.raises(ClientError):
        await hub.ask(f"{APP}/blobs/{layer}")


async def test_a_manifest_that_does_not_match_its_digest_is_served_by_the_next_place(
    site: MeshSite, hub: GatewaySite
) -> None:
    image = await both(site, "v1", images.image(layers=[b"one"]))
    site.registries["cn@shanghai"].faults.lie = Lie(1)
    assert (await hub.ask(f"{APP}/manifests/{image.digest}")).body == image.manifest.body
    assert hub.count("requests_total", place="cn", status="200") == 1


async def test_a_miss_is_served_from_home_and_replicated_once(site: MeshSite, hub: GatewaySite) -> None:
    """The replica is declared already and was filled; then an image is deleted there without the mesh."""
    await site.start_agent("shanghai")
    image = images.image(layers=[b"one"])
    await site.push("cn", "v1", image)
    await until(lambda: site.digest("cn@shanghai", "v1"))
    async with client(site.registries["cn@shanghai"]) as registry:
        await registry.delete_manifest(APP, image.digest)
    for _ in range(3):
        assert (await hub.ask(f"{APP}/manifests/v1", "HEAD")).status == 200
    assert hub.count("misses_total", place="cn@shanghai") == 3
    await until(lambda: site.digest("cn@shanghai", "v1"))
    started = [it for it in (await site.get("executions"))["items"] if it["trigger"] == "reconcile"]
    assert [it["rule"] for it in started] == ["cn@shanghai"]
    assert await commands(site) == ["reconcile"]  # one for three misses within a minute
    assert (await hub.ask(f"{APP}/manifests/v1", "HEAD")).status == 200
    assert hub.count("requests_total", place="cn@shanghai", status="200") == 1


async def test_a_miss_by_digest_replicates_the_tag_that_names_it(site: MeshSite, hub: GatewaySite) -> None:
    """As Kubernetes pulls what is pinned. The gateway does not know the tag."""
    await site.start_agent("shanghai")
    image, other = images.image(layers=[b"one"]), images.image(layers=[b"other"])
    await site.push("cn", "v1", image)
    await site.push("cn", "v2", other)
    await until(lambda: site.digest("cn@shanghai", "v1"))
    async with client(site.registries["cn@shanghai"]) as registry:
        await registry.delete_manifest(APP, image.digest)
    for _ in range(3):
        assert (await hub.ask(f"{APP}/manifests/{image.digest}", "HEAD")).status == 200
    await until(lambda: site.digest("cn@shanghai", "v1"))
    assert await commands(site) == ["reconcile"]
    assert await site.digest("cn@shanghai", "v2") == other.digest


async def test_digests_that_are_pulled_after_their_tag_start_no_second_replication(
    site: MeshSite, hub: GatewaySite
) -> None:
    child = images.image(layers=[b"a platform"])
    index = images.index([child])
    await site.push("cn", "v1", index)
    for reference in ("v1", index.digest, child.digest):
        assert (await hub.ask(f"{APP}/manifests/{reference}")).status == 200
    await until(lambda: commands(site))
    assert hub.count("misses_total", place="cn@shanghai") == 3
    assert await commands(site) == ["reconcile"]


async def commands(site: MeshSite) -> list[str]:
    """Why each execution was started by a gateway, in the order of the log."""
    ends = await site.node.log.end(topics.COMMANDS)
    found: list[str] = []
    async with aclosing(site.node.log.follow(topics.COMMANDS)) as batches:
        async for batch in batches:
            values = [record.value or b"" for record in batch.records]
            found += [
                decode(it, ExecutionStart).trigger for it in values if kind_of(it) == ExecutionStart.kind
            ]
            if all(batch.positions.get(number, 0) >= end for number, end in ends.items()):
                break
    return [trigger for trigger in found if trigger == "reconcile"]


async def test_without_a_place_in_the_region_no_replication_is_started(site: MeshSite) -> None:
    regions = [
        {"name": "beijing", "jurisdiction": "cn", "links": [{"to": "chengdu", "cost": 9}]},
        {"name": "shanghai", "jurisdiction": "cn", "links": [{"to": "chengdu", "cost": 1}]},
        {"name": "chengdu", "jurisdiction": "cn"},
    ]
    await site.apply({"regions": regions})
    await site.push("cn", "v1", images.image(layers=[b"one"]))
    async with gateway(site, "chengdu") as hub:
        assert (await hub.ask(f"{APP}/manifests/v1")).status == 200
    assert manifests(site, "cn@shanghai") > 0  # it was asked first
    assert hub.count("misses_total", place="cn@shanghai") == 0
    assert await commands(site) == []


async def test_the_declared_cost_decides_which_region_is_nearest(site: MeshSite) -> None:
    regions = [
        {"name": "beijing", "jurisdiction": "cn", "links": [{"to": "chengdu", "cost": 5}]},
        {"name": "shanghai", "jurisdiction": "cn", "links": [{"to": "chengdu", "cost": 50}]},
        {"name": "chengdu", "jurisdiction": "cn"},
    ]
    await site.apply({"regions": regions})
    await both(site, "v1", images.image(layers=[b"one"]))
    async with gateway(site, "chengdu") as hub:
        await hub.ask(f"{APP}/manifests/v1")
        assert hub.count("requests_total", place="cn", status="200") == 1
        regions[0]["links"][0]["cost"] = 500
        await site.apply({"regions": regions})
        await hub.ask(f"{APP}/manifests/v1")
        assert hub.count("requests_total", place="cn@shanghai", status="200") == 1


async def test_nothing_is_served_from_another_jurisdiction(site: MeshSite) -> None:
    image = await both(site, "v1", images.image(layers=[b"one"]))
    await site.registry("eu")
    async with gateway(site, "frankfurt") as hub:
        for path in (
            f"{APP}/manifests/v1",
            f"{APP}/blobs/{image.blob_descriptors[0].digest}",
            "",
            f"{APP}/tags/list",
        ):
            refused = await hub.ask(path)
            assert (refused.status, refused.code) == (403, "DENIED"), path
        assert (await hub.ask("/token/cn")).status == 404
        await site.apply({"instances": [instance(site, "eu", "frankfurt")]})
        missing = await hub.ask(f"{APP}/manifests/v1")
        assert (missing.status, missing.code) == (404, "MANIFEST_UNKNOWN")
    assert (
        sum(
            it.traffic.requests["GET", "base"]
            for it in site.registries.values()
            if it is not site.registries["eu"]
        )
        == 0
    )


async def test_the_first_listed_instance_wins_and_the_second_serves_what_it_does_not_have(
    site: MeshSite, hub: GatewaySite
) -> None:
    await site.registry("team")
    await site.apply({"instances": [instance(site, "team", "shanghai", account="team")]})
    ours = images.image(layers=[b"ours"])
    theirs = images.image(layers=[b"theirs"])
    await site.push("cn", "v1", ours)
    await site.push("team", "v1", theirs)
    await site.push("team", "v2", theirs, Repository("team/tool"))
    assert (await hub.ask(f"{APP}/manifests/v1")).body == ours.manifest.body
    assert (await hub.ask("team/tool/manifests/v2")).body == theirs.manifest.body
    await until(lambda: commands(site))
    assert (hub.count("misses_total", place="cn@shanghai"), await commands(site)) == (
        1,
        ["reconcile"],
    )  # of v1 alone
    await site.apply(
        {"instances": [instance(site, "team", "shanghai", account="team"), instance(site, "cn")]}
    )
    assert (await hub.ask(f"{APP}/manifests/v1")).body == theirs.manifest.body


async def test_while_the_first_instance_is_down_no_other_account_serves_its_names(
    site: MeshSite, hub: GatewaySite
) -> None:
    await site.registry("team")
    await site.apply({"instances": [instance(site, "team", "shanghai", account="team")]})
    theirs = images.image(layers=[b"theirs"])
    await site.push("team", "v1", theirs)
    for place in ("cn", "cn@shanghai"):
        await site.registries[place].stop()
    refused = await hub.ask(f"{APP}/manifests/v1")
    assert (refused.status, refused.code, refused.headers["Retry-After"]) == (503, "UNAVAILABLE", "5")
    assert (await hub.ask(f"{APP}/manifests/{theirs.digest}")).body == theirs.manifest.body


async def test_the_second_instance_serves_what_the_first_did_not_have_before_it_went_down(
    site: MeshSite, hub: GatewaySite
) -> None:
    await site.registry("team")
    await site.apply({"instances": [instance(site, "team", "shanghai", account="team")]})
    theirs = images.image(layers=[b"theirs"])
    for tag in ("v1", "v2"):
        await site.push("team", tag, theirs)
    assert (await hub.ask(f"{APP}/manifests/v1")).status == 200
    await site.push("cn", "v2", images.image(layers=[b"ours"]))
    assert (await hub.ask(f"{APP}/manifests/v2")).body != theirs.manifest.body
    for place in ("cn", "cn@shanghai"):
        await site.registries[place].stop()
    assert (await hub.ask(f"{APP}/manifests/v1")).body == theirs.manifest.body
    assert (await hub.ask(f"{APP}/manifests/v2")).status == 503


async def test_busy_and_broken_places_are_reported_as_such(site: MeshSite, hub: GatewaySite) -> None:
    for place in ("cn", "cn@shanghai"):
        site.registries[place].faults.throttle = Throttle(1000, 7)
    busy = await hub.ask(f"{APP}/manifests/v1")
    assert (busy.status, busy.code, busy.headers["Retry-After"]) == (429, "TOOMANYREQUESTS", "7")
    for place in ("cn", "cn@shanghai"):
        site.registries[place].faults.throttle = None
        site.registries[place].faults.fail = Fail(1000, path="/v2/game")
    broken = await hub.ask(f"{APP}/manifests/v1")
    assert (broken.status, broken.code) == (503, "UNAVAILABLE")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "game/App/manifests/v1", 400, "NAME_INVALID"),
        ("GET", "game/../app/manifests/v1", 400, "NAME_INVALID"),
        ("GET", "game/%2e%2e/%2e%2e/app/manifests/v1", 400, "NAME_INVALID"),
        ("GET", "/v2//manifests/v1", 400, "NAME_INVALID"),
        ("GET", f"{'a' * 300}/manifests/v1", 400, "NAME_INVALID"),
        ("GET", "game/app/manifests/.bad", 404, "MANIFEST_UNKNOWN"),
        ("GET", "game/app/manifests/none", 404, "MANIFEST_UNKNOWN"),
        ("HEAD", "game/app/manifests/none", 404, ""),
        ("GET", "game/app/manifests/sha256:abc", 400, "DIGEST_INVALID"),
        ("GET", "game/app/blobs/sha256:../../etc/passwd", 404, "UNSUPPORTED"),
        ("GET", "game/app/blobs/v1", 400, "DIGEST_INVALID"),
        ("GET", f"game/app/blobs/sha256:{'0' * 64}", 404, "BLOB_UNKNOWN"),
        ("GET", "game/app/referrers/x", 400, "DIGEST_INVALID"),
        ("GET", "no/such/tags/list", 404, "NAME_UNKNOWN"),
        ("GET", "_catalog", 405, "UNSUPPORTED"),
        ("GET", "game/app", 404, "UNSUPPORTED"),
        ("POST", "game/app/blobs/uploads/", 405, "UNSUPPORTED"),
        ("PUT", "game/app/manifests/v1", 405, "UNSUPPORTED"),
        ("DELETE", "game/app/manifests/v1", 405, "UNSUPPORTED"),
        ("GET", "/token/unknown", 404, "NAME_UNKNOWN"),
        ("GET", "/token/cn", 404, "UNSUPPORTED"),
    ],
)
async def test_bad_requests_get_the_error_code_of_the_specification(
    hub: GatewaySite, method: str, path: str, status: int, code: str
) -> None:
    refused = await hub.ask(path, method)
    assert refused.status == status
    assert method == "HEAD" or refused.code == code
    assert b"127.0.0.1" not in refused.body


async def test_an_unknown_host_is_refused_and_a_fixed_domain_is_served_for_any_host(
    site: MeshSite, hub: GatewaySite
) -> None:
    await both(site, "v1", images.image(layers=[b"one"]))
    unknown = await hub.ask(f"{APP}/manifests/v1", Host="other.example.com")
    assert (unknown.status, unknown.code) == (404, "NAME_UNKNOWN")
    assert (await hub.ask(f"{APP}/manifests/v1", Host="HUB.example.com:5000")).status == 200
    mirrored = await hub.ask(f"{APP}/manifests/v1?ns={HUB}", Host="127.0.0.1:1")
    assert mirrored.status == 200
    async with gateway(site, "shanghai", GatewayOptions(domain=HUB)) as named:
        assert (await named.ask(f"{APP}/manifests/v1", Host="localhost:1")).status == 200


async def test_a_removed_place_is_not_asked_any_more(site: MeshSite, hub: GatewaySite) -> None:
    await both(site, "v1", images.image(layers=[b"one"]))
    await site.api.request("DELETE", "/api/v1/replicas/cn@shanghai")
    await hub.ask(f"{APP}/manifests/v1")
    assert hub.count("requests_total", place="cn", status="200") == 1

    async def forgotten() -> bool:
        found = hub.metrics.registry.get_sample_value("regmesh_gateway_place_up", {"place": "cn@shanghai"})
        return found is None

    await until(forgotten)
    asked = site.registries["cn@shanghai"].traffic.requests["GET", "base"]
    await asyncio.sleep(0.35)  # three looks
    assert site.registries["cn@shanghai"].traffic.requests["GET", "base"] == asked


async def test_concurrent_pulls_are_complete(site: MeshSite, hub: GatewaySite) -> None:
    image = await both(site, "v1", images.image(layers=[BIG]))
    layer = next(digest for digest, body in image.blobs.items() if body == BIG)
    found = await asyncio.gather(*(hub.ask(f"{APP}/blobs/{layer}") for _ in range(12)))
    assert all(it.body == BIG for it in found)


@pytest.mark.parametrize("hub", [{"miss_interval": 0.001}], indirect=True)
async def test_a_later_miss_is_replicated_again_by_another_execution(
    site: MeshSite, hub: GatewaySite
) -> None:
    await site.start_agent("shanghai")
    image = images.image(layers=[b"one"])
    await site.push("cn", "v1", image)
    for times in (1, 2):
        await until(lambda: site.digest("cn@shanghai", "v1"))
        async with client(site.registries["cn@shanghai"]) as registry:
            await registry.delete_manifest(APP, image.digest)
        assert (await hub.ask(f"{APP}/manifests/v1", "HEAD")).status == 200

        async def ended(times: int = times) -> bool:
            items = (await site.get("executions"))["items"]
            states = [it["status"] for it in items if it["trigger"] == "reconcile"]
            return states == ["Succeed"] * times

        await until(ended)
    assert await site.digest("cn@shanghai", "v1") == image.digest


async def test_a_manifest_by_tag_that_does_not_match_its_claimed_digest_is_served_by_the_next_place(
    site: MeshSite, hub: GatewaySite
) -> None:
    image = await both(site, "v1", images.image(layers=[b"one"]))
    site.registries["cn@shanghai"].faults.lie = Lie(1)
    assert (await hub.ask(f"{APP}/manifests/v1")).body == image.manifest.body
    assert hub.count("requests_total", place="cn", status="200") == 1


@pytest.mark.parametrize("hub", [{"manifest_timeout": 0.3}], indirect=True)
async def test_a_manifest_that_trickles_in_is_served_by_the_next_place(
    site: MeshSite, hub: GatewaySite
) -> None:
    """Such a place never runs into a read time-out."""
    image = await both(site, "v1", images.image(layers=[b"one"]))

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.json_response({})
        response = web.StreamResponse(headers={"Content-Type": image.manifest.media_type})
        response.content_length = 1_000_000
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.02)
        return response

    async with stub() as dripping, asyncio.timeout(20):
        dripping.answer = answer
        await site.apply({"replicas": [replica(site, "cn", "shanghai") | {"url": dripping.url}]})
        assert (await hub.ask(f"{APP}/manifests/v1")).body == image.manifest.body
    assert hub.count("requests_total", place="cn", status="200") == 1


async def test_a_range_outside_of_a_blob_does_not_mark_its_place_as_down(
    site: MeshSite, hub: GatewaySite
) -> None:
    """docker-registry announces its refusal as long as the blob, sends a few bytes, and breaks off."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.json_response({})
        response = web.StreamResponse(status=416, headers={"Content-Range": "bytes */3"})
        response.content_length = 1000
        await response.prepare(request)
        await response.write(b"invalid range")
        assert request.transport is not None
        request.transport.abort()
        return response

    blob = images.image(layers=[b"one"]).blob_descriptors[-1].digest
    async with stub() as strict:
        strict.answer = answer
        await site.apply({"replicas": [replica(site, "cn", "shanghai") | {"url": strict.url}]})
        refused = await hub.ask(f"{APP}/blobs/{blob}", Range="bytes=3-")
        assert hub.count("place_up", place="cn@shanghai") == 1
    assert (refused.status, refused.code, refused.headers["Content-Range"]) == (
        416,
        "SIZE_INVALID",
        "bytes */3",
    )


async def test_a_gateway_whose_region_is_not_declared_says_so(site: MeshSite) -> None:
    async with gateway(site, "nowhere") as lost:
        refused = await lost.ask(f"{APP}/manifests/v1")
    assert (refused.status, refused.code) == (503, "UNAVAILABLE")
    assert b"region nowhere of this gateway is not declared" in refused.body


@pytest.mark.parametrize("hub", [{"client_stall_timeout": 0.2}], indirect=True)
async def test_a_client_that_stops_reading_is_disconnected(site: MeshSite, hub: GatewaySite) -> None:
    """Otherwise it would hold a connection to a place, and buffers, for ever."""
    size = 48 * 1024 * 1024  # more than all buffers on the way hold
    image = images.image(layers=[bytes(size)])
    await site.push("cn", "v1", image)
    layer = image.blob_descriptors[-1].digest
    with capture_logs() as logs, socket.create_connection(("127.0.0.1", URL(hub.url).port or 0)) as lazy:
        lazy.sendall(f"GET /v2/{APP}/blobs/{layer} HTTP/1.1\r\nHost: {HUB}\r\n\r\n".encode())

        async def is_let_go() -> bool:
            return any(it.get("action") == "gateway_client_stalled" for it in logs)

        await until(is_let_go)
        lazy.settimeout(10)
        assert await asyncio.to_thread(_received, lazy) < size


def _received(connection: socket.socket) -> int:
    """How many bytes come until the other side ends it."""
    count = 0
    with suppress(ConnectionError):
        while chunk := connection.recv(1 << 20):
            count += len(chunk)
    return count
