"""Prefetch and the relay: bytes leave the source once, arrive before their manifest, and are always verified."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout, web
from yarl import URL

from consumer.blobs.relay import client as peer_client
from consumer.blobs.relay import incoming, serve
from consumer.blobs.relay.client import PeerClient
from consumer.blobs.relay.serve import Relay
from consumer.blobs.relay.signing import MeshKeys, RegionKeys, RelayRequest, headers_of
from consumer.blobs.relay.tee import NEARLY, WINDOW
from mesh.credentials.secrets import Secrets
from mesh.errors import Denied, NotFound, RegistryError
from mesh.node import roles
from mesh.registry.port import Descriptor, digest_of
from schemas.names import Digest, MediaType, PlaceName, Region, Tag
from tests.support import images
from tests.support.manual_clock import ManualClock
from tests.support.mesh_site import APP, CLOCK, MeshSite, client, mesh_site, until
from tests.support.registries import stub

REPLICAS = ("shanghai", "chengdu", "guangzhou", "hangzhou")
MIB = 1024 * 1024
SECRET = "of the mesh"


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MeshSite]:
    """An instance in Beijing with four replicas; the agent of the last one sends nothing on."""
    monkeypatch.setenv("REGMESH_SECRET_RELAY", SECRET)
    monkeypatch.setenv("REGMESH_SECRET_RELAY_HOSTS", "relays")
    async with mesh_site(tmp_path) as found:
        await found.registry("cn")
        for region in REPLICAS:
            await found.registry(f"cn@{region}")
        await found.apply(document(found))
        await found.until_fills_are_listed()
        for region in REPLICAS:
            await found.start_agent(region, sends_on=region != "hangzhou")
        await until(lambda: _agents(found, len(REPLICAS)))
        await until(lambda: _know_each_other(found))
        yield found


def document(site: MeshSite) -> dict[str, Any]:
    return {
        "regions": [
            {"name": name, "jurisdiction": "cn", "relay": {"secret": "RELAY"}}
            for name in ("beijing", *REPLICAS)
        ],
        "instances": [
            {"name": "cn", "account": "game", "region": "beijing", "url": site.registries["cn"].url}
        ],
        "replicas": [
            {"instance": "cn", "region": region, "url": site.registries[f"cn@{region}"].url}
            for region in REPLICAS
        ],
    }


async def _agents(site: MeshSite, count: int) -> bool:
    return len((await site.get("agents"))["items"]) >= count


async def _know_each_other(site: MeshSite) -> bool:
    counts = [
        agent._ports.metrics.awake_regions.labels(name)._value.get()
        for name, (agent, _) in site.agents.items()
    ]
    return counts == [len(REPLICAS) - 1] * len(REPLICAS)


async def arrived(site: MeshSite, tag: str, digest: object, places: tuple[str, ...] = REPLICAS) -> bool:
    return {await site.digest(f"cn@{region}", tag) for region in places} == {digest}


async def test_each_layer_leaves_the_source_once_whatever_the_number_of_replicas(site: MeshSite) -> None:
    image = images.image(layers=[os.urandom(3 * MIB) for _ in range(3)])
    digest = await site.push("cn", "v1", image)
    await until(lambda: arrived(site, "v1", digest))
    assert set(site.registries["cn"].traffic.pulls.values()) == {1}
    entries = await until(lambda: _succeeded(site, len(REPLICAS)))
    sent = {
        region: sum(it["bytes_from"].get(region, 0) for it in entries) for region in ("beijing", *REPLICAS)
    }
    size = sum(blob.size for blob in image.blob_descriptors)
    assert sent["beijing"] == size
    assert sum(sent.values()) == size * len(REPLICAS)
    assert sent["hangzhou"] == 0


async def _succeeded(site: MeshSite, count: int) -> list[dict[str, Any]]:
    found = await site.logs(status="Succeed")
    return found if len(found) >= count else []


async def test_the_layers_are_at_the_replicas_before_the_manifest_is_pushed(site: MeshSite) -> None:
    image = images.image(layers=[os.urandom(MIB)])
    async with client(site.registries["cn"]) as registry:
        for blob in image.blob_descriptors:
            await registry.write_blob(APP, blob, images._once(image.blobs[blob.digest]))

        async def is_prefetched() -> bool:
            for region in REPLICAS:
                async with client(site.registries[f"cn@{region}"]) as replica:
                    found = [await replica.blob_size(APP, blob.digest) for blob in image.blob_descriptors]
                    if None in found:
                        return False
            return True

        await until(is_prefetched)
        await registry.write_manifest(APP, Tag("v1"), image.manifest)
    await until(lambda: arrived(site, "v1", image.digest))
    entries = await until(lambda: _succeeded(site, len(REPLICAS)))
    size = sum(blob.size for blob in image.blob_descriptors)
    assert {(it["bytes_total"], it["bytes_transferred"], it["bytes_skipped"]) for it in entries} == {
        (size, size, 0)
    }
    assert {registry.traffic.uploads.total() for registry in site.registries.values()} == {2}


async def test_a_dead_relay_is_passed_over_for_the_origin(site: MeshSite) -> None:
    asked: set[str] = set()

    class Dead:
        async def handle(self, request: web.Request) -> web.StreamResponse:
            asked.add(request.headers["Regmesh-Region"])
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

    for region in (
        "shanghai",
        "chengdu",
    ):  # their heartbeats stand for half a minute, and nobody answers for them
        await site.kill_agent(region)
        site.relays._relays[region] = Dead()  # type: ignore[assignment]
    digest = await site.push("cn", "v1", images.image(layers=[os.urandom(MIB)]))
    await until(lambda: arrived(site, "v1", digest, ("guangzhou", "hangzhou")))
    assert asked


async def test_a_relay_that_lies_is_found_out_and_dropped(site: MeshSite) -> None:
    asked: set[tuple[str, str]] = set()

    class Liar:
        async def handle(self, request: web.Request) -> web.StreamResponse:
            asked.add((request.headers["Regmesh-Region"], request.match_info["place"]))
            return web.Response(body=bytes(int(request.query["size"])))

    for region in REPLICAS[:3]:
        site.relays._relays[region] = Liar()  # type: ignore[assignment]
    digest = await site.push("cn", "v1", images.image(layers=[os.urandom(MIB)]))
    await until(lambda: arrived(site, "v1", digest))
    assert asked
    entries = await until(lambda: _succeeded(site, len(REPLICAS)))
    assert {it["attempts"] for it in entries} == {1}
    before = asked.copy()
    asked.clear()
    digest = await site.push("cn", "v2", images.image(layers=[os.urandom(MIB)]))
    await until(lambda: arrived(site, "v2", digest))
    assert not asked & before  # nobody asks one again so soon that lied to him


async def test_a_relay_of_an_older_version_is_passed_over_for_the_origin(site: MeshSite) -> None:
    """As during a rolling update: it knows only the secret itself, which is not sent any more."""
    asked: set[str] = set()

    class Older:
        async def handle(self, request: web.Request) -> web.StreamResponse:
            asked.add(request.headers["Authorization"].partition(" ")[0])
            return web.json_response({"error": "the relay secret is missing or wrong"}, status=401)

    for region in REPLICAS[:3]:
        site.relays._relays[region] = Older()  # type: ignore[assignment]
    digest = await site.push("cn", "v1", images.image(layers=[os.urandom(MIB)]))
    await until(lambda: arrived(site, "v1", digest))
    assert asked
    assert "Bearer" not in asked
    entries = await until(lambda: _succeeded(site, len(REPLICAS)))
    assert {it["attempts"] for it in entries} == {1}


async def test_a_relay_that_breaks_off_is_taken_over_where_it_broke(site: MeshSite) -> None:
    class Cutter:
        def __init__(self, relay: Relay) -> None:
            self.relay = relay

        async def handle(self, request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            response.content_length = int(request.query["size"])
            await response.prepare(request)
            await response.write(layer[: MIB // 2])
            await asyncio.sleep(0.2)
            assert request.transport is not None
            request.transport.abort()
            return response

    layer = os.urandom(MIB)
    for region in REPLICAS[:3]:
        site.relays._relays[region] = Cutter(site.relays._relays[region])  # type: ignore[assignment]
    image = images.image(layers=[layer], config=b"{}")
    async with client(
        site.registries["cn"]
    ) as registry:  # the config everywhere first, so that only the layer is asked
        await images.push(registry, APP, Tag("v1"), image)
    await until(lambda: arrived(site, "v1", image.digest))


def signed(
    url: str,
    digest: str,
    size: int,
    *,
    region: str = "chengdu",
    offset: int = 0,
    place: str = "cn@shanghai",
    secret: str = SECRET,
) -> dict[str, str]:
    """Returns the headers by which an agent of `region` asks a relay for a blob."""
    request = RelayRequest(url, Region(region), PlaceName(place), APP, Digest(digest), size, offset)
    headers = headers_of(request, MeshKeys(secret), CLOCK.now())
    return headers | ({"Range": f"bytes={offset}-"} if offset else {})


@pytest.mark.parametrize(
    ("region", "changes", "status"),
    [
        ("chengdu", {}, 404),
        ("chengdu", {"Authorization": f"Bearer {SECRET}"}, 401),  # as earlier versions asked
        ("chengdu", {"Authorization": ""}, 401),
        ("chengdu", {"Regmesh-Region": "guangzhou"}, 401),  # chengdu says that it is guangzhou
        ("chengdu", {"Regmesh-Time": "1700000000"}, 401),
        ("chengdu", {"Range": "bytes=5-"}, 401),
        ("beijing", {}, 403),  # no replica stands there
        ("mars", {}, 403),
        ("chengdu", {"Regmesh-Region": "NOT A REGION"}, 400),
        ("chengdu", {"Range": "bytes=1-2"}, 400),
        ("chengdu", {"Range": "bytes=10-"}, 400),  # all that there is
        ("chengdu", {"Range": "bytes=-1"}, 400),
    ],
)
async def test_only_who_may_have_a_blob_is_sent_it(
    site: MeshSite, region: str, changes: dict[str, str], status: int
) -> None:
    digest = f"sha256:{'0' * 64}"
    headers = signed(site.url, digest, 10, region=region) | changes
    path = f"{site.url}/v1/relay/cn@shanghai/{APP}/blobs/{digest}?size=10"
    async with ClientSession() as session, session.get(path, headers=headers) as answer:
        assert answer.status == status


@pytest.mark.parametrize(
    "other",
    [
        {"digest": f"sha256:{'1' * 64}"},  # a signature for another blob
        {"place": "cn@guangzhou"},  # that another relay has seen
        {"size": 11},
        {"secret": "of another mesh"},
        {"url": "http://127.0.0.1:1"},  # that a heartbeat with another address got
    ],
)
async def test_a_signature_is_for_one_blob_of_one_relay(site: MeshSite, other: dict[str, Any]) -> None:
    digest = f"sha256:{'0' * 64}"
    headers = signed(**{"url": site.url, "digest": digest, "size": 10} | other)
    path = f"{site.url}/v1/relay/cn@shanghai/{APP}/blobs/{digest}?size=10"
    async with ClientSession() as session, session.get(path, headers=headers) as answer:
        assert answer.status == 401


def keys_of_chengdu() -> RegionKeys:
    return MeshKeys(SECRET).keys_of_region(Region("chengdu"), map(Region, REPLICAS))


async def test_an_agent_with_the_keys_of_its_region_alone_relays(site: MeshSite) -> None:
    await site.stop_agent("chengdu")
    known = {"REGMESH_SECRET_RELAY": keys_of_chengdu().text(), "REGMESH_SECRET_RELAY_HOSTS": "relays"}
    await site.start_agent("chengdu", secrets=Secrets(known))
    await until(lambda: _agents(site, len(REPLICAS)))
    await until(lambda: _know_each_other(site))
    image = images.image(layers=[os.urandom(MIB) for _ in range(4)])
    digest = await site.push("cn", "v1", image)
    await until(lambda: arrived(site, "v1", digest))
    assert set(site.registries["cn"].traffic.pulls.values()) == {1}


@pytest.mark.parametrize(("region", "status"), [("chengdu", 404), ("guangzhou", 401)])
async def test_the_keys_of_a_region_ask_as_no_other(site: MeshSite, region: str, status: int) -> None:
    digest = f"sha256:{'0' * 64}"
    request = RelayRequest(
        site.url, Region(region), PlaceName("cn@shanghai"), APP, Digest(digest), 10, offset=0
    )
    headers = headers_of(request, keys_of_chengdu(), CLOCK.now())
    path = f"{site.url}/v1/relay/cn@shanghai/{APP}/blobs/{digest}?size=10"
    async with ClientSession() as session, session.get(path, headers=headers) as answer:
        assert answer.status == status


async def test_the_keys_of_another_region_relay_nothing(site: MeshSite) -> None:
    await site.stop_agent("guangzhou")
    known = {"REGMESH_SECRET_RELAY": keys_of_chengdu().text(), "REGMESH_SECRET_RELAY_HOSTS": "relays"}
    await site.start_agent("guangzhou", secrets=Secrets(known))

    async def announces_nothing() -> bool:
        found = {it["region"]: it["relay"] for it in (await site.get("agents"))["items"]}
        return "guangzhou" in found and found["guangzhou"] is None

    await until(announces_nothing)
    digest = await site.push("cn", "v1", images.image(layers=[os.urandom(MIB)]))
    await until(lambda: arrived(site, "v1", digest))


async def test_a_relay_never_learns_the_secret(site: MeshSite) -> None:
    seen: list[str] = []

    class Watching:
        def __init__(self, relay: Relay) -> None:
            self.relay = relay

        async def handle(self, request: web.Request) -> web.StreamResponse:
            seen.append(f"{request.raw_headers!r} {request.raw_path}")
            return await self.relay.handle(request)

    for region in REPLICAS[:3]:
        site.relays._relays[region] = Watching(site.relays._relays[region])  # type: ignore[assignment]
    digest = await site.push("cn", "v1", images.image(layers=[os.urandom(MIB)]))
    await until(lambda: arrived(site, "v1", digest))
    assert seen
    assert not [one for one in seen if SECRET in one]


async def test_what_a_forged_heartbeat_gets_is_accepted_by_no_relay(site: MeshSite) -> None:
    """Who announces an address as a relay of Shanghai sees a request, and passes it on to the real one."""
    blob = Descriptor(MediaType("application/octet-stream"), Digest(f"sha256:{'0' * 64}"), 10)
    passed_on: list[int] = []
    async with stub() as forged, ClientSession() as session:

        async def pass_on(request: web.Request) -> web.StreamResponse:
            async with session.get(f"{site.url}{request.path_qs}", headers=request.headers) as answer:
                passed_on.append(answer.status)
                return web.Response(status=answer.status, body=await answer.read())

        forged.answer = pass_on
        peer = PeerClient(Region("chengdu"), lambda: MeshKeys(SECRET), CLOCK)
        try:
            for url, expected in ((site.url, NotFound), (forged.url, Denied)):
                with pytest.raises(expected):
                    async with peer.read(url, PlaceName("cn@shanghai"), APP, blob, 0):
                        pass
        finally:
            await peer.close()
    assert passed_on == [401]


async def test_a_relay_that_refuses_says_why(site: MeshSite) -> None:
    """An operator sees in the log of the agent that asked that its clock is wrong."""
    blob = Descriptor(MediaType("application/octet-stream"), Digest(f"sha256:{'0' * 64}"), 10)
    late = ManualClock(CLOCK.now() - timedelta(minutes=10))
    peer = PeerClient(Region("chengdu"), lambda: MeshKeys(SECRET), late)
    try:
        with pytest.raises(Denied, match="set both clocks"):
            async with peer.read(site.url, PlaceName("cn@shanghai"), APP, blob, 0):
                pass
    finally:
        await peer.close()


async def test_an_address_that_is_no_place_for_a_relay_is_not_asked() -> None:
    peer = PeerClient(Region("chengdu"), lambda: MeshKeys(SECRET), CLOCK)
    blob = Descriptor(MediaType("application/octet-stream"), Digest(f"sha256:{'0' * 64}"), 10)
    try:
        with pytest.raises(RegistryError, match=r"169\.254\.169\.254, which is not on a public network"):
            async with peer.read("http://169.254.169.254", PlaceName("cn@shanghai"), APP, blob, 0):
                pass
    finally:
        await peer.close()


async def test_an_agent_that_stopped_opens_no_connections_for_those_who_still_ask_it(site: MeshSite) -> None:
    digest = await site.push("cn", "v1", images.image(layers=[b"x" * 10]))
    await until(lambda: arrived(site, "v1", digest))
    asked = site.agents["shanghai"][0]
    await site.stop_agent("shanghai")
    headers = signed(site.url, digest, 10)
    path = f"{site.url}/v1/relay/cn@shanghai/{APP}/blobs/{digest}?size=10"
    async with ClientSession() as session, session.get(path, headers=headers) as answer:
        assert (answer.status, await answer.json()) == (502, {"error": "this agent has stopped"})
    assert not asked._places._endpoints


async def test_what_is_complete_is_served_from_the_registry_and_by_range(site: MeshSite) -> None:
    layer = os.urandom(MIB)
    image = images.image(layers=[layer])
    await site.push("cn", "v1", image)
    await until(lambda: arrived(site, "v1", image.digest))
    blob = image.blob_descriptors[1]
    headers = signed(site.url, blob.digest, blob.size, offset=1000)
    path = f"{site.url}/v1/relay/cn@shanghai/{APP}/blobs/{blob.digest}?size={blob.size}"
    async with ClientSession() as session, session.get(path, headers=headers) as answer:
        assert (answer.status, answer.headers["Content-Range"]) == (206, f"bytes 1000-{MIB - 1}/{MIB}")
        assert await answer.read() == layer[1000:]


async def test_what_is_there_is_served_though_a_task_that_wants_it_has_not_come_to_it(site: MeshSite) -> None:
    """It wants many, some at a time; who asks for one that was there all the while waits for none of them."""
    image = images.image(layers=[b"x" * 10])
    await site.push("cn", "v1", image)
    await until(lambda: arrived(site, "v1", image.digest))
    blob = image.blob_descriptors[1]
    incoming_there = site.agents["shanghai"][0].relay._incoming
    headers = signed(site.url, blob.digest, blob.size)
    path = f"{site.url}/v1/relay/cn@shanghai/{APP}/blobs/{blob.digest}?size={blob.size}"
    with incoming_there.expecting([(PlaceName("cn@shanghai"), blob.digest)]):
        async with ClientSession() as session, session.get(path, headers=headers) as answer:
            assert (answer.status, await answer.read()) == (200, b"x" * 10)


@pytest.mark.parametrize(
    ("missing", "offset", "status"),
    [
        (MIB, 0, 202),  # better than to read all of it from the source once more
        (NEARLY + MIB, 0, 416),  # which may take long
        (MIB, 1000, 416),  # who has some of it already reads on elsewhere
    ],
)
async def test_who_is_late_for_the_first_bytes_waits_for_a_blob_that_is_nearly_there(
    site: MeshSite, missing: int, offset: int, status: int
) -> None:
    blob, size = digest_of(b"some blob"), WINDOW + MIB + missing
    incoming_there = site.agents["shanghai"][0].relay._incoming
    path = f"{site.url}/v1/relay/cn@shanghai/{APP}/blobs/{blob}?size={size}"
    with incoming_there.receiving((PlaceName("cn@shanghai"), blob), size) as tee:
        for _ in range(WINDOW // MIB + 1):
            tee.put(bytes(MIB))
        headers = signed(site.url, blob, size, offset=offset)
        async with ClientSession() as session, session.get(path, headers=headers) as answer:
            assert answer.status == status


async def test_a_relay_that_stalls_is_dropped_for_the_origin(
    site: MeshSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        peer_client, "_TIMEOUT", ClientTimeout(total=None, connect=3, sock_read=0.5)
    )  # of new sessions

    class Staller:
        async def handle(self, request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            response.content_length = int(request.query["size"])
            await response.prepare(request)
            await response.write(b"x")
            await asyncio.sleep(30)
            return response

    for region in REPLICAS[:3]:
        site.relays._relays[region] = Staller()  # type: ignore[assignment]
    digest = await site.push("cn", "v1", images.image(layers=[os.urandom(MIB)]))
    await until(lambda: arrived(site, "v1", digest))


async def test_a_follower_that_is_too_slow_reads_on_from_the_origin(
    site: MeshSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hangzhou is a leaf, and every link to it is slower than the others': it falls out of its sender's window."""
    monkeypatch.setattr(incoming, "WINDOW", 2 * MIB)
    speeds = dict.fromkeys(REPLICAS[:3], 16 * MIB) | {"hangzhou": 4 * MIB}
    regions = [
        it | {"links": [{"to": to, "speed": speed} for to, speed in speeds.items() if to != it["name"]]}
        for it in document(site)["regions"]
    ]
    await site.apply({"regions": regions})
    image = images.image(layers=[os.urandom(32 * MIB)])  # more than sockets hold
    digest = await site.push("cn", "v1", image)
    await until(lambda: arrived(site, "v1", digest))
    entries = await until(lambda: _succeeded(site, len(REPLICAS)))
    (slowest,) = [it for it in entries if it["destination_region"] == "hangzhou"]
    size = sum(blob.size for blob in image.blob_descriptors)
    assert sum(slowest["bytes_from"].values()) == size
    dropped = site.agents["hangzhou"][0]._ports.metrics.sources_dropped.labels("unreachable")
    assert dropped._value.get() >= 1


async def test_who_takes_no_bytes_is_not_waited_for_for_ever(
    site: MeshSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it is sent would stay in memory for as long as its connection does."""
    monkeypatch.setattr(serve, "_STALL_SECONDS", 0.5)
    ended: list[str] = []
    relay = site.relays._relays["shanghai"]

    class Watched:
        async def handle(self, request: web.Request) -> web.StreamResponse:
            try:
                return await relay.handle(request)
            finally:
                ended.append(request.headers["Regmesh-Region"])

    image = images.image(layers=[os.urandom(32 * MIB)])  # more than sockets hold
    digest = await site.push("cn", "v1", image)
    await until(lambda: arrived(site, "v1", digest))
    site.relays._relays["shanghai"] = Watched()  # type: ignore[assignment]
    blob = image.blob_descriptors[1]
    asked = URL(site.url)
    _, writer = await asyncio.open_connection(asked.host, asked.port, limit=1024)
    path = f"/v1/relay/cn@shanghai/{APP}/blobs/{blob.digest}?size={blob.size}"
    head = "".join(f"{name}: {value}\r\n" for name, value in signed(site.url, blob.digest, blob.size).items())
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
    try:
        await until(lambda: asyncio.sleep(0, "chengdu" in ended))
    finally:
        writer.close()


@pytest.mark.parametrize("declaring", [(), ("shanghai",)])
async def test_the_regions_of_one_process_relay_without_a_declaration(
    tmp_path: Path, declaring: tuple[str, ...]
) -> None:
    async with mesh_site(tmp_path) as site:
        for place in ("cn", *(f"cn@{region}" for region in REPLICAS)):
            await site.registry(place)
        declared = document(site)
        relay = {"relay": {"secret": "NO_SUCH_SECRET"}}
        regions = [
            {"name": it["name"], "jurisdiction": "cn"} | (relay if it["name"] in declaring else {})
            for it in declared["regions"]
        ]
        await site.apply(declared | {"regions": regions})
        await site.until_fills_are_listed()
        stopping = asyncio.Event()
        every_region = roles.EveryRegion(site.node, site.relays, site.url, site.settings)
        running = asyncio.create_task(every_region.run(stopping))
        try:
            await until(lambda: _agents(site, len(REPLICAS) + 1))
            await until(lambda: asyncio.sleep(0, _all_know_each_other(every_region)))
            image = images.image(layers=[os.urandom(MIB)])
            digest = await site.push("cn", "v1", image)
            await until(lambda: arrived(site, "v1", digest))
        finally:
            stopping.set()
            await running
        assert set(site.registries["cn"].traffic.pulls.values()) == {1}


def _all_know_each_other(every_region: roles.EveryRegion) -> bool:
    known = [len(every_region.agents[Region(name)]._transfers._peers.live_regions()) for name in REPLICAS]
    return known == [len(REPLICAS) - 1] * len(REPLICAS)
