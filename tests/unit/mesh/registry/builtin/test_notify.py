"""Notifications in the format of the distribution registry: one by one, until accepted, lost at a restart."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from mesh.registry.builtin import BuiltinRegistry
from mesh.registry.builtin.notify import ENVELOPE, Notify
from mesh.registry.port import digest_of
from tests.support.manual_clock import ManualClock

BLOB = b"some bytes"
DIGEST = digest_of(BLOB)
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Endpoint:
    """Accepts events, after the statuses in `answers`."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.attempts = 0
        self.events: list[dict[str, Any]] = []
        self.headers: Any = None
        self.arrived = asyncio.Event()
        self.silent: asyncio.Event | None = None  # when set: no answer until then

    async def take(self, request: web.Request) -> web.Response:
        self.attempts += 1
        self.arrived.set()
        if self.silent is not None:
            await self.silent.wait()
        status = self.answers.pop(0) if self.answers else 200
        if status < 300:
            self.headers = request.headers
            self.events += json.loads(await request.read())["events"]
        return web.Response(status=status)

    def of(self, *path: str) -> list[Any]:
        return [_inside(event, path) for event in self.events]


def _inside(event: dict[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = event
    for part in path:
        found = found.get(part)
    return found


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    app = web.Application()
    app.router.add_post("/events", endpoint.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}/events"
    yield endpoint
    await runner.cleanup()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


@pytest.fixture
async def registry(endpoint: Endpoint, clock: ManualClock, tmp_path: Path) -> AsyncIterator[BuiltinRegistry]:
    numbers = count(1)
    notify = Notify(endpoint.url, headers={"Authorization": "Bearer s3cret"}, timeout=0.5, backoff=3.0)
    registry = BuiltinRegistry(tmp_path, clock=clock, notify=notify, new_id=lambda: f"id-{next(numbers)}")
    await registry.start()
    yield registry
    await registry.stop()


async def send(registry: BuiltinRegistry, method: str, path: str, **more: Any) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, registry.url + path, **more) as answer,
    ):
        return answer.status


async def push_blob(registry: BuiltinRegistry) -> None:
    assert await send(registry, "POST", f"/v2/app/blobs/uploads/?digest={DIGEST}", data=BLOB) == 201


async def push_manifest(registry: BuiltinRegistry, reference: str = "1.0") -> None:
    path = f"/v2/app/manifests/{reference}"
    assert await send(registry, "PUT", path, data=b"{}", headers={"Content-Type": MANIFEST}) == 201


async def test_a_pushed_manifest_is_announced_in_the_distribution_envelope(
    registry: BuiltinRegistry, endpoint: Endpoint
):
    await push_manifest(registry)
    await registry.drained()
    digest = digest_of(b"{}")
    (event,) = endpoint.events
    request = event.pop("request")
    assert event == {
        "id": "id-2",
        "timestamp": "2026-01-02T03:04:05Z",
        "action": "push",
        "target": {
            "mediaType": MANIFEST,
            "digest": digest,
            "size": 2,
            "length": 2,
            "repository": "app",
            "url": f"{registry.url}/v2/app/manifests/{digest}",
            "tag": "1.0",
        },
        "actor": {},
        "source": {"addr": registry.url.removeprefix("http://"), "instanceID": "id-1"},
    }
    assert (request["method"], request["host"]) == ("PUT", registry.url.removeprefix("http://"))
    assert endpoint.headers["Content-Type"] == ENVELOPE
    assert endpoint.headers["Authorization"] == "Bearer s3cret"


async def test_every_change_is_announced_in_order(registry: BuiltinRegistry, endpoint: Endpoint):
    digest = digest_of(b"{}")
    await push_blob(registry)
    await send(registry, "POST", f"/v2/other/blobs/uploads/?mount={DIGEST}&from=app")
    await push_manifest(registry, digest)
    await push_manifest(registry, "1.0")
    await send(registry, "DELETE", "/v2/app/manifests/1.0")
    await send(registry, "DELETE", f"/v2/app/manifests/{digest}")
    await registry.drained()
    assert endpoint.of("action") == ["push", "mount", "push", "push", "delete", "delete"]
    assert endpoint.of("target", "tag") == [None, None, None, "1.0", "1.0", None]
    assert endpoint.of("target", "digest") == [DIGEST, DIGEST, digest, digest, None, digest]
    assert endpoint.of("target", "fromRepository") == [None, "app", None, None, None, None]
    assert endpoint.of("target", "repository") == ["app", "other", "app", "app", "app", "app"]


async def test_several_tags_are_several_events(registry: BuiltinRegistry, endpoint: Endpoint):
    await push_manifest(registry, f"{digest_of(b'{}')}?tag=a&tag=b")
    await registry.drained()
    assert endpoint.of("target", "tag") == ["a", "b"]


async def test_the_event_names_its_actor(registry: BuiltinRegistry, endpoint: Endpoint):
    headers = {"Authorization": aiohttp.encode_basic_auth("ci", "password")}
    await send(registry, "POST", f"/v2/app/blobs/uploads/?digest={DIGEST}", data=BLOB, headers=headers)
    await registry.drained()
    assert endpoint.of("actor") == [{"name": "ci"}]


async def test_an_event_is_sent_until_it_is_accepted(
    registry: BuiltinRegistry, endpoint: Endpoint, clock: ManualClock
):
    endpoint.answers = [503, 500, 302, 401]
    await push_blob(registry)
    await push_manifest(registry)
    await registry.drained()
    assert endpoint.of("target", "mediaType") == ["application/octet-stream", MANIFEST]
    assert (endpoint.attempts, clock.monotonic()) == (6, 4 * 3.0)


async def test_an_event_is_sent_again_after_a_time_out(registry: BuiltinRegistry, endpoint: Endpoint):
    endpoint.silent = asyncio.Event()
    await push_blob(registry)
    async with asyncio.timeout(5):
        while endpoint.attempts < 2:
            await asyncio.sleep(0.01)
        endpoint.silent.set()
        await registry.drained()
    assert endpoint.of("id")[-1] == endpoint.of("id")[0]  # a duplicate carries the same id


async def test_queued_events_are_lost_at_a_stop(registry: BuiltinRegistry, endpoint: Endpoint):
    endpoint.answers = [500] * 100_000
    await push_blob(registry)
    await push_manifest(registry)
    await endpoint.arrived.wait()
    await registry.stop()
    await registry.drained()
    endpoint.answers = []
    await registry.start()
    await push_manifest(registry, "2.0")
    await registry.drained()
    assert endpoint.of("target", "tag") == ["2.0"]


async def test_a_restart_shows_in_the_source(registry: BuiltinRegistry, endpoint: Endpoint):
    await push_blob(registry)
    await registry.drained()
    await registry.stop()
    await registry.start()
    await push_blob(registry)
    await registry.drained()
    assert len(set(endpoint.of("source", "instanceID"))) == 2


async def test_a_tag_is_stored_before_it_is_announced(registry: BuiltinRegistry, endpoint: Endpoint):
    endpoint.silent = asyncio.Event()
    await push_manifest(registry)
    await endpoint.arrived.wait()
    assert await send(registry, "HEAD", "/v2/app/manifests/1.0") == 200
    endpoint.silent.set()


async def test_announce_first_announces_a_tag_before_it_is_stored(
    registry: BuiltinRegistry, endpoint: Endpoint, clock: ManualClock
):
    registry.faults.announce_first = 2.0
    endpoint.silent = asyncio.Event()
    pushing = asyncio.ensure_future(push_manifest(registry))
    await endpoint.arrived.wait()
    assert await send(registry, "HEAD", "/v2/app/manifests/1.0") == 404
    assert await send(registry, "HEAD", f"/v2/app/manifests/{digest_of(b'{}')}") == 200
    endpoint.silent.set()
    await pushing
    assert await send(registry, "HEAD", "/v2/app/manifests/1.0") == 200
    assert (clock.monotonic(), registry.faults.struck["announce_first"]) == (2.0, 1)


def test_headers_are_not_shown():
    assert "s3cret" not in repr(Notify("http://127.0.0.1:1/", headers={"Authorization": "s3cret"}))
