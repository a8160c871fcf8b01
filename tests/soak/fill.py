"""Fills a replica while regmesh is killed several times; then a walk over plain HTTP compares both sides.

Two docker-registry processes and `regmesh up`. Every image has a layer and a config of its own, and a layer that all
images of its repository share.
"""

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import yaml

from mesh.registry.client import open_endpoint
from mesh.registry.manifests import OCI_MANIFEST
from schemas.completions import Side
from schemas.names import Repository, Tag
from tests.support import images, parts
from tests.support.parts import Distribution, Process, until

_CONCURRENT = 16


@dataclass(frozen=True)
class Filled:
    """The result of a run."""

    tags: int
    kills: int
    fill_seconds: float
    differences: list[str]


def run(folder: Path, *, repositories: int, tags: int, kills: int, report: Callable[[str], None]) -> Filled:
    """Fills a replica of `repositories` with `tags` each; `regmesh up` is killed `kills` times."""
    source, replica = Distribution(folder / "game"), Distribution(folder / "replica")
    api = f"http://127.0.0.1:{parts.free_port()}"
    file = folder / "mesh.yaml"
    up: Process | None = None
    try:
        source.start()
        replica.start()
        report(f"pushing {repositories * tags} images")
        asyncio.run(_populate(source, repositories, tags))
        file.write_text(yaml.safe_dump(document(source, replica)))
        began = time.monotonic()
        up = start_up(folder, file, api)
        for number in range(kills):
            wanted = repositories * tags * (number + 1) // (kills + 1)
            until(
                f"{wanted} tasks", lambda at_least=wanted: _succeeded(api) >= at_least, within=3600, every=0.2
            )
            report(f"kill -9 after {_succeeded(api)} of {repositories * tags}")
            up.kill()
            up = start_up(folder, file, api)
        until("the fill has ended", lambda: _state(api) not in (None, "InProgress"), within=3600, every=0.5)
        seconds = time.monotonic() - began
        report(f"filled in {seconds:.0f} s, the fill ended {_state(api)}; walking")
        return Filled(repositories * tags, kills, seconds, differences(source, replica))
    finally:
        for one in (up, source.process, replica.process):
            if one is not None:
                one.end()


def differences(source: Distribution, replica: Distribution) -> list[str]:
    """Returns every tag of either side that is not complete at the other, by plain HTTP."""
    with ThreadPoolExecutor(_CONCURRENT) as pool:
        here, there = (
            dict(pool.map(lambda name, at=at: (name, _tags(at, name)), _catalog(at)))
            for at in (source, replica)
        )
        names = [(name, tag) for name in here | there for tag in {*here.get(name, ()), *there.get(name, ())}]
        return [found for found in pool.map(lambda it: _difference(source, replica, *it), names) if found]


def document(source: Distribution, replica: Distribution) -> dict[str, Any]:
    """Returns a document with an instance `game` and its replica in Shanghai."""
    return {
        "regions": [{"name": name, "jurisdiction": "cn"} for name in ("beijing", "shanghai")],
        "instances": [{"name": "game", "account": "game", "region": "beijing", "url": source.url}],
        "replicas": [{"instance": "game", "region": "shanghai", "url": replica.url}],
    }


def start_up(folder: Path, file: Path, api: str) -> Process:
    """Starts `regmesh up` and waits until it is ready."""
    listen = api.removeprefix("http://")
    started = parts.regmesh(
        folder / "up.log", "up", "-f", str(file), "--data", str(folder / "data"), "--listen", listen
    )
    until("up is ready", lambda: parts.get(f"{api}/readyz"), within=60, needs=[started])
    return started


def _fill(api: str) -> dict[str, Any]:
    found = (parts.get(f"{api}/api/v1/executions", rule="game@shanghai") or {}).get("items") or [{}]
    fill: dict[str, Any] = found[-1]
    return fill


def _state(api: str) -> str | None:
    return _fill(api).get("status")


def _succeeded(api: str) -> int:
    fill = _fill(api)
    return int(fill.get("succeed") or 0) + int(fill.get("skipped") or 0)


async def _populate(source: Distribution, repositories: int, tags: int) -> None:
    endpoint = open_endpoint("game", source.url, None)
    registry, limit = endpoint.registry(Side.DESTINATION), asyncio.Semaphore(_CONCURRENT)

    async def push(number: int) -> None:
        name = Repository(f"team{number % 10}/app{number}")
        shared = f"{number}".encode() * 5000
        async with limit:
            for tag in range(tags):
                image = images.image(layers=[shared, f"{number}/{tag}".encode() * 50])
                await images.push(registry, name, Tag(f"v{tag}"), image)

    try:
        await asyncio.gather(*(push(number) for number in range(repositories)))
    finally:
        await endpoint.close()


def _catalog(registry: Distribution) -> list[str]:
    found: list[str] = []
    while True:
        last = f"&last={found[-1]}" if found else ""
        page = json.loads(_get(f"{registry.url}/v2/_catalog?n=500{last}")[0])["repositories"]
        if not page:
            return found
        found += page


def _tags(registry: Distribution, name: str) -> list[str]:
    return json.loads(_get(f"{registry.url}/v2/{name}/tags/list")[0])["tags"] or []


def _difference(source: Distribution, replica: Distribution, name: str, tag: str) -> str | None:
    digests = [registry.digest(name, tag) for registry in (source, replica)]
    if digests[0] != digests[1]:
        return f"{name}:{tag} is {digests[0]} and {digests[1]}"
    body, _ = _get(f"{replica.url}/v2/{name}/manifests/{digests[1]}", Accept=OCI_MANIFEST)
    manifest = json.loads(body)
    for blob in (manifest["config"], *manifest["layers"]):
        try:
            length = _get(f"{replica.url}/v2/{name}/blobs/{blob['digest']}", "HEAD")[1]
        except OSError as error:
            return f"{name}:{tag} lacks {blob['digest']} ({error})"
        if length != blob["size"]:
            return f"{name}:{tag} has {blob['digest']} with {length} bytes instead of {blob['size']}"
    return None


def _get(url: str, method: str = "GET", **headers: str) -> tuple[bytes, int]:
    with urlopen(Request(url, method=method, headers=headers), timeout=30) as answer:
        body = answer.read()
        return body, int(answer.headers["Content-Length"] or len(body))  # long lists come in chunks
