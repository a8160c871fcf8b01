"""A real registry notifies a real intake: its events arrive on the log, also after refusals."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from aiohttp import ClientSession

from schemas import topics
from schemas.events import Action, TagState
from tests.support.intake_site import BEIJING, GUARDED, SECRET, Site, intake_site
from tests.support.parts import Distribution

pytestmark = pytest.mark.real("docker-registry")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


async def until(true: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await true():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def registry(folder: Path, notified: str) -> AsyncIterator[str]:
    """Distribution 2.8 on a free port, which notifies `notified` with the secret; gives its URL."""
    headers = {"Authorization": [f"Bearer {SECRET}"]}
    made = Distribution(folder / "registry", notify=notified, headers=headers)
    try:
        await asyncio.to_thread(made.start)
        yield made.url
    finally:
        await asyncio.to_thread(made.end)


async def push_blob(http: ClientSession, url: str, repository: str, content: bytes) -> dict[str, object]:
    async with http.post(f"{url}/v2/{repository}/blobs/uploads/") as started:
        where = started.headers["Location"]
    async with http.put(f"{where}&digest={digest(content)}", data=content) as put:
        assert put.status == 201
    return {"mediaType": "application/octet-stream", "digest": digest(content), "size": len(content)}


async def push_image(http: ClientSession, url: str, repository: str, tag: str) -> str:
    config, layer = b"{}", f"layer of {repository}:{tag}".encode()
    manifest = orjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": await push_blob(http, url, repository, config),
            "layers": [await push_blob(http, url, repository, layer)],
        }
    )
    where = f"{url}/v2/{repository}/manifests/{tag}"
    async with http.put(where, data=manifest, headers={"Content-Type": MANIFEST}) as put:
        assert put.status == 201
    return digest(manifest)


@pytest.fixture
async def site(tmp_path):
    async with intake_site(tmp_path) as site:
        yield site


def arrived(site: Site, action: Action, count: int = 1) -> Callable[[], Awaitable[bool]]:
    async def seen() -> bool:
        return sum(event.action is action for event in await site.events()) >= count

    return seen


async def test_what_a_registry_does_arrives_on_the_log(site: Site, tmp_path):
    rev = await site.declare(GUARDED)
    url = f"{site.url}/v1/notifications/game-cn"
    async with registry(tmp_path, url) as registry_url, ClientSession() as http:
        pushed = await push_image(http, registry_url, "game/server", "1.4.2")
        await until(arrived(site, Action.MANIFEST_PUSH))
        mount = f"{registry_url}/v2/game/other/blobs/uploads/?mount={digest(b'{}')}&from=game/server"
        async with http.post(mount) as mounted:
            assert mounted.status == 201
        await until(arrived(site, Action.BLOB_MOUNT))
        (tag,) = await site.read(topics.tags(BEIJING), TagState)
        assert (tag.key, tag.digest) == ("game-cn/game/server:1.4.2", pushed)
        async with http.delete(f"{registry_url}/v2/game/server/manifests/{pushed}") as deleted:
            assert deleted.status == 202
        await until(arrived(site, Action.MANIFEST_DELETE))
        await until(arrived(site, Action.TAG_DELETE))  # distribution deletes the tags of a deleted manifest
    by_action = {event.action: event for event in await site.events()}
    push, mount = by_action[Action.MANIFEST_PUSH], by_action[Action.BLOB_MOUNT]
    assert (push.repository, push.tag, push.digest) == ("game/server", "1.4.2", pushed)
    assert (push.media_type, push.origin, push.hops) == (MANIFEST, "game-cn", 0)
    assert push.rules_rev >= rev
    assert abs(push.time - push.occurred_at).total_seconds() < 10
    assert (mount.repository, mount.from_repository, mount.digest) == (
        "game/other", "game/server", digest(b"{}"),
    )  # fmt: skip
    assert by_action[Action.MANIFEST_DELETE].digest == pushed
    assert sum(event.action is Action.BLOB_PUSH for event in await site.events()) == 2
    (tag_record,) = await site.records(topics.tags(BEIJING))
    assert (tag_record.key, tag_record.value) == ("game-cn/game/server:1.4.2", None)
    assert not await site.dead_letters()


async def test_a_refused_notification_is_sent_again(site: Site, tmp_path):
    """While the instance is undeclared, the registry keeps the event and sends it again."""
    url = f"{site.url}/v1/notifications/game-cn"
    async with registry(tmp_path, url) as registry_url, ClientSession() as http:
        await push_image(http, registry_url, "game/server", "1.0")

        async def refused() -> bool:
            return site.count("notifications_total", instance="unknown", answer="refused") >= 2

        await until(refused)
        assert not await site.events()
        await site.declare(GUARDED)
        await until(arrived(site, Action.MANIFEST_PUSH))
    assert {event.tag for event in await site.events()} == {None, "1.0"}


@pytest.mark.real("skopeo")
async def test_an_image_that_skopeo_pushes_arrives(site: Site, tmp_path):
    await site.declare(GUARDED)
    url = f"{site.url}/v1/notifications/game-cn"
    async with registry(tmp_path, url) as registry_url, ClientSession() as http:
        await push_image(http, registry_url, "game/server", "1.0")
        host = registry_url.removeprefix("http://")
        process = await asyncio.create_subprocess_exec(
            *("skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--insecure-policy"),
            *(f"docker://{host}/game/server:1.0", f"docker://{host}/game/copy:2.0"),
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await process.wait() == 0
        await until(arrived(site, Action.MANIFEST_PUSH, count=2))
    assert "2.0" in {event.tag for event in await site.events() if event.repository == "game/copy"}
    assert site.count("ignored_events_total", instance="game-cn") > 0  # skopeo's pulls
    assert not await site.dead_letters()
