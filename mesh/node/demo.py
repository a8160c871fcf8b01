"""`regmesh demo`: the main job on parts of our own, from a push in Beijing to a pull in Frankfurt, in a few seconds.

Nothing is faked but the registries' age: two small registries and a webhook receiver run in this process, everything
goes over HTTP on loopback, and the log is the embedded one in a folder that is removed at the end.
"""

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import standardwebhooks
from aiohttp import web
from rich.console import Console

from consumer.relay import Relays
from mesh.clock import SystemClock
from mesh.errors import RegmeshError
from mesh.node import lifecycle, roles, serve
from mesh.node.node import open_node
from mesh.node.output import size
from mesh.node.remote import Remote
from mesh.registry.builtin import BuiltinRegistry
from mesh.registry.builtin.notify import Notify
from mesh.registry.client import RegistryClient, open_endpoint
from mesh.registry.manifests import OCI_MANIFEST
from mesh.registry.port import Descriptor, Manifest, digest_of
from schemas.completions import Side
from schemas.names import Digest, MediaType, Repository, Tag

_LAYER = 4 * 1024 * 1024
_LAYERS = 4
_WITHIN = 60.0  # seconds for a copy that takes one
_REPOSITORY, _TAG, _LOCAL_TAG = Repository("game/server"), Tag("v1.0-global"), Tag("v1.0-mainland")
_SECRET = "whsec_" + "cmVnbWVzaC1kZW1vLXdlYmhvb2stc2VjcmV0"  # the receiver below checks signatures with it


class DemoFailed(RegmeshError):
    code = "demo_failed"


def run() -> None:
    """Run the demo to its end; `DemoFailed` when what it shows does not hold."""
    os.environ["REGMESH_SECRET_DEMO_WEBHOOK"] = _SECRET
    with tempfile.TemporaryDirectory(prefix="regmesh-demo-") as folder:

        async def main(stopping: asyncio.Event) -> None:
            await _Demo(Path(folder), Console(highlight=False, soft_wrap=True)).run(stopping)

        lifecycle.run(main)


class _Demo:
    def __init__(self, folder: Path, console: Console) -> None:
        self._folder = folder
        self._say = console.print
        self._delivered: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def run(self, stopping: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            node = await stack.enter_async_context(open_node(None, self._folder))
            control, intake = roles.control(node, None), roles.intake(node)
            url = await stack.enter_async_context(
                serve.listening("127.0.0.1:0", node, [intake.routes, control.routes, self._receiver])
            )
            beijing = await stack.enter_async_context(self._registry("game-cn", url))
            frankfurt = await stack.enter_async_context(self._registry("game-eu", url))
            await node.table.caught_up()
            await control.apply(_document(url, beijing.url, frankfurt.url))
            group = await stack.enter_async_context(asyncio.TaskGroup())
            ended = asyncio.Event()
            serving = [
                group.create_task(control.run()),
                group.create_task(roles.EveryRegion(node, Relays(), url).run(ended)),
            ]
            self._introduce(url, beijing, frankfurt)
            showing = group.create_task(self._show(url, beijing, frankfurt))
            stop = group.create_task(stopping.wait())
            await asyncio.wait([showing, stop], return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            showing.cancel()
            ended.set()
            await asyncio.wait(serving[1:])
            serving[0].cancel()

    def _introduce(self, url: str, beijing: BuiltinRegistry, frankfurt: BuiltinRegistry) -> None:
        self._say("[bold]regmesh demo[/bold]: two regions, one rule, one push")
        self._say(f"  game-cn in beijing    {beijing.url}   notifies {url}/v1/notifications/game-cn")
        self._say(f"  game-eu in frankfurt  {frankfurt.url}")
        self._say("  rule release-to-eu    game/** with tags *-global, from game-cn to game-eu")

    async def _show(self, url: str, beijing: BuiltinRegistry, frankfurt: BuiltinRegistry) -> None:
        pushed, total = await self._push(beijing)
        clock = SystemClock()
        began = clock.monotonic()
        await self._arrive(frankfurt, pushed)
        self._say(
            f"[green]pullable in frankfurt[/green] {clock.monotonic() - began:.2f} s after the push ended"
        )
        entry = await self._entry(url)
        hook = await asyncio.wait_for(self._delivered.get(), _WITHIN)
        await self._check(frankfurt, pushed, entry, hook, total)
        self._report(entry, hook, frankfurt)

    async def _push(self, beijing: BuiltinRegistry) -> tuple[Digest, int]:
        layers = [os.urandom(_LAYER) for _ in range(_LAYERS)]
        config = orjson.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [
            f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]}})  # fmt: skip
        blobs = [_described("application/vnd.oci.image.config.v1+json", config)]
        blobs += [_described("application/vnd.oci.image.layer.v1.tar", layer) for layer in layers]
        manifest = _manifest(blobs)
        self._say(
            f"[bold]pushing[/bold] {_REPOSITORY} as {_TAG} and {_LOCAL_TAG}: {len(layers)} layers of {size(_LAYER)}"
        )
        async with _client(beijing) as registry:
            for blob, body in zip(blobs, [config, *layers], strict=True):
                await registry.write_blob(_REPOSITORY, blob, _once(body))
            await registry.write_manifest(_REPOSITORY, _LOCAL_TAG, manifest)
            await registry.write_manifest(_REPOSITORY, _TAG, manifest)
        return manifest.digest, sum(blob.size for blob in blobs)

    async def _arrive(self, frankfurt: BuiltinRegistry, pushed: Digest) -> None:
        """Ask as a client in Frankfurt would, until the tag is there."""
        async with asyncio.timeout(_WITHIN), _client(frankfurt) as registry:
            while True:
                found = await registry.resolve(_REPOSITORY, _TAG)
                if found is not None and found.digest == pushed:
                    return
                await asyncio.sleep(0.01)

    async def _entry(self, url: str) -> dict[str, Any]:
        async with asyncio.timeout(_WITHIN):
            while True:
                query = {"repository": str(_REPOSITORY), "tag": str(_TAG)}
                async for entry in Remote(url).pages("/api/v1/logs", query, most=1):
                    if entry["status"] != "InProgress":
                        return entry
                await asyncio.sleep(0.05)

    async def _check(
        self,
        frankfurt: BuiltinRegistry,
        pushed: Digest,
        entry: dict[str, Any],
        hook: dict[str, Any],
        total: int,
    ) -> None:
        async with _client(frankfurt) as registry:
            pulled = await registry.read_manifest(_REPOSITORY, _TAG)
            local = await registry.resolve(_REPOSITORY, _LOCAL_TAG)
        if pulled.digest != pushed or entry["status"] != "Succeed" or entry["bytes_transferred"] != total:
            raise DemoFailed(f"pushed {pushed} with {total} bytes, and the sync log says {entry}")
        if hook["type"] != "replication.succeeded" or hook["data"]["digest"] != pushed:
            raise DemoFailed(f"the webhook does not tell of {pushed}")
        if local is not None:
            raise DemoFailed(f"{_LOCAL_TAG} left Beijing, and no rule wants that")

    def _report(self, entry: dict[str, Any], hook: dict[str, Any], frankfurt: BuiltinRegistry) -> None:
        self._say("[bold]report[/bold]")
        self._say(f"  sync log   {entry['status']}: {entry['source']} -> {entry['destination']}")
        self._say(
            f"             {size(entry['bytes_transferred'])} sent, lag {entry['lag_ms']} ms, try {entry['attempts']}"
        )
        self._say(f"  digest     {entry['digest']} at both ends")
        self._say(f"  webhook    {hook['type']}, its signature verified by the receiver")
        self._say(f"  held back  {_LOCAL_TAG}: no rule wants it, and frankfurt does not have it")
        pulls = frankfurt.seen.uploads.total()
        self._say(f"  blobs      {pulls} uploaded to frankfurt, each once")
        self._say("next: `regmesh up -f mesh.yaml` with registries of your own; README.md shows the file")

    @asynccontextmanager
    async def _registry(self, name: str, url: str) -> AsyncIterator[BuiltinRegistry]:
        notify = Notify(f"{url}/v1/notifications/{name}")
        registry = BuiltinRegistry(self._folder / name, clock=SystemClock(), notify=notify)
        await registry.start()
        try:
            yield registry
        finally:
            await registry.stop()

    def _receiver(self, app: web.Application) -> None:
        """A webhook receiver such as a CI system has, which believes only what is signed."""
        verifier = standardwebhooks.Webhook(_SECRET)

        async def receive(request: web.Request) -> web.Response:
            body = await request.text()
            verifier.verify(body, dict(request.headers))
            await self._delivered.put(orjson.loads(body))
            return web.Response(status=204)

        app.router.add_post("/demo/hook", receive)


@asynccontextmanager
async def _client(registry: BuiltinRegistry) -> AsyncIterator[RegistryClient]:
    endpoint = open_endpoint("demo", registry.url, None)
    try:
        yield endpoint.registry(Side.DESTINATION)
    finally:
        await endpoint.close()


def _document(url: str, beijing: str, frankfurt: str) -> dict[str, Any]:
    return {
        "regions": [
            {"name": "beijing", "jurisdiction": "cn-mainland"},
            {"name": "frankfurt", "jurisdiction": "global"},
        ],
        "instances": [
            {"name": "game-cn", "account": "game", "region": "beijing", "url": beijing},
            {"name": "game-eu", "account": "game", "region": "frankfurt", "url": frankfurt},
        ],
        "rules": [
            {
                "name": "release-to-eu",
                "source": "game-cn",
                "destination": "game-eu",
                "filters": [{"type": "name", "value": "game/**"}, {"type": "tag", "value": "*-global"}],
            }
        ],
        "webhooks": [{"name": "ci", "url": f"{url}/demo/hook", "account": "game", "secret": "DEMO_WEBHOOK"}],
    }


def _described(media_type: str, body: bytes) -> Descriptor:
    return Descriptor(MediaType(media_type), digest_of(body), len(body))


def _manifest(blobs: list[Descriptor]) -> Manifest:
    parts = [{"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size} for blob in blobs]
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": parts[0], "layers": parts[1:]}
    body = orjson.dumps(document)
    return Manifest(OCI_MANIFEST, digest_of(body), body)


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body
