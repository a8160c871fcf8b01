"""A source whose lists repeat names: pages that changed while they were read, or a next page that is the same."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from mesh.clock import SystemClock
from mesh.log.port import Append
from mesh.registry.client import open_endpoint
from producer.reconcile import Reconcile
from producer.settings import ProducerSettings
from schemas import codec, topics
from schemas.executions import ExecutionStart, ImageName
from schemas.names import ObjectName, PlaceName, Region, Repository, Tag
from tests.support.control_site import DIGEST, MESH, NOW, Site, control_site, until

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@asynccontextmanager
async def _registry() -> AsyncIterator[str]:
    """Holds game/app:v1 and v2, and repeats the last name of each page on the next one."""

    async def listed(request: web.Request) -> web.Response:
        field, names = ("tags", ["v1", "v2"]) if "tags" in request.path else ("repositories", ["game/app"])
        headers = {} if "last" in request.query else {"Link": f'<{request.path}?last=x>; rel="next"'}
        return web.json_response({field: names if headers else names[-1:]}, headers=headers)

    async def manifest(_: web.Request) -> web.Response:
        headers = {"Docker-Content-Digest": DIGEST, "Content-Type": MANIFEST, "Content-Length": "7"}
        return web.Response(headers=headers)

    app = web.Application()
    app.router.add_get("/v2/_catalog", listed)
    app.router.add_get("/v2/{name:.+}/tags/list", listed)
    app.router.add_head("/v2/{name:.+}/manifests/{reference}", manifest)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _mesh(folder: Path) -> AsyncIterator[Site]:
    """Control and a producer, without an agent."""
    async with _registry() as url, control_site(folder) as site:
        cn, eu = MESH["instances"]
        await site.control.apply(MESH | {"instances": [cn | {"url": url}, eu]})
        reconcile = Reconcile(
            log=site.log, state=site.state, table=site.table,
            open_endpoint=lambda place: open_endpoint(place.name, place.url, None),
            clock=SystemClock(), random=lambda: 0.5,
            settings=ProducerSettings(listing_attempts=2, listing_first_wait=0.01),
        )  # fmt: skip
        running = asyncio.create_task(reconcile.run())
        try:
            yield site
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def _total(site: Site, execution_id: str) -> int:
    """Returns the total that the listing wrote; the execution ends when as many tasks have ended."""
    found: int | None = None

    async def is_listed() -> bool:
        nonlocal found
        _, shown = await site.call("GET", f"/api/v1/executions/{execution_id}")
        found = shown.get("total")
        return found is not None

    await until(is_listed)
    assert found is not None
    return found


async def test_what_a_source_names_twice_is_listed_once(tmp_path: Path) -> None:
    async with _mesh(tmp_path) as site:
        status, answer = await site.call("POST", "/api/v1/executions", {"rule": "release-to-eu"})
        assert status == 201
        assert await _total(site, answer["id"]) == 2


async def test_what_a_command_names_twice_is_listed_once(tmp_path: Path) -> None:
    async with _mesh(tmp_path) as site:
        image = ImageName(repository=Repository("game/app"), tag=Tag("v1"))
        start = ExecutionStart(
            id="start", time=NOW, execution_id="twice", region=Region("beijing"), rule=PlaceName("release-to-eu"),
            source=ObjectName("game-cn"), trigger="manual", images=(image, image), rules_rev=-1,
        )  # fmt: skip
        await site.log.append([Append(topics.COMMANDS, start.key, codec.encode(start))])
        assert await _total(site, "twice") == 1


async def test_a_command_of_a_revision_that_the_log_does_not_have_is_carried_out(tmp_path: Path) -> None:
    """The declared state was lost, or restored from an older copy, and the command is from before that."""
    async with _mesh(tmp_path) as site:
        start = ExecutionStart(
            id="start", time=NOW, execution_id="lost", region=Region("beijing"), rule=PlaceName("release-to-eu"),
            source=ObjectName("game-cn"), trigger="manual", rules_rev=1_000_000,
        )  # fmt: skip
        await site.log.append([Append(topics.COMMANDS, start.key, codec.encode(start))])
        assert await _total(site, "lost") == 2
