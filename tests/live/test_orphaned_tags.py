"""Deletions that docker-registry did not notify, followed by a replica on another one, through a kill -9."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh.registry.client import open_endpoint
from schemas.completions import Side
from schemas.names import Repository, Tag
from tests.soak.fill import document, start_up
from tests.support import images, parts
from tests.support.parts import Distribution, until

pytestmark = [pytest.mark.real("docker-registry")]

REPLICA = "game@shanghai"
PUSHED = {
    (f"team/app{repository}", tag): f"{repository}/{image}"
    for repository in range(6)
    for tag, image in (("v1", "one"), ("v2", "two"), ("latest", "two"), ("v3", "three"))
}


@pytest.fixture
def registries(tmp_path: Path) -> Iterator[tuple[Distribution, Distribution]]:
    """Neither notifies anybody."""
    both = Distribution(tmp_path / "game").start(), Distribution(tmp_path / "replica").start()
    yield both
    for one in both:
        if one.process is not None:
            one.process.end()


def test_what_went_without_a_word_goes_at_the_replica_after_a_look_through_it(
    tmp_path: Path, registries: tuple[Distribution, Distribution]
) -> None:
    source, replica = registries
    asyncio.run(_push(source))
    api, file = f"http://127.0.0.1:{parts.free_port()}", tmp_path / "mesh.yaml"
    file.write_text(yaml.safe_dump(document(source, replica)))
    up = start_up(tmp_path, file, api)
    try:
        until("the fill", lambda: _held(source) == _held(replica))
        until("the fill has ended", lambda: _executions(api, "copy", status="Succeed"))

        shutil.rmtree(source.folder / "data/docker/registry/v2/repositories/team/app0")
        asyncio.run(_delete(source, "team/app1", "v1"))
        asyncio.run(_delete(source, "team/app1", "v2"))  # by digest, as it can: `latest` goes with it
        there = _held(source)
        assert len(there) == len(PUSHED) - 7
        assert len(_held(replica)) == len(PUSHED)
        synced = parts.run_regmesh("sync", REPLICA, "--wait", "--server", api)
        assert synced.returncode == 0, synced.stderr
        until("the deletions have started", lambda: _executions(api, "delete") or _deletions(api))
        up.kill()
        assert _held(source) == there
        up = start_up(tmp_path, file, api)
        until("the replica is equal", lambda: _held(replica) == there, within=90)
        until("all have ended", lambda: len(_deletions(api)) == 7)
        assert {it["trigger"] for it in _deletions(api)} == {"reconcile"}
        # of one digest one goes first
        assert {it["status"] for it in _deletions(api)} <= {"Succeed", "Skipped"}
    finally:
        up.end()


async def _push(registry: Distribution) -> None:
    endpoint = open_endpoint("game", registry.url, None)
    try:
        for (name, tag), content in PUSHED.items():
            image = images.image(layers=[content.encode()])
            await images.push(endpoint.registry(Side.DESTINATION), Repository(name), Tag(tag), image)
    finally:
        await endpoint.close()


async def _delete(registry: Distribution, name: str, tag: str) -> None:
    endpoint = open_endpoint("game", registry.url, None)
    try:
        client = endpoint.registry(Side.DESTINATION)
        found = await client.resolve(Repository(name), Tag(tag))
        assert found is not None
        await client.delete_manifest(Repository(name), found.digest)
    finally:
        await endpoint.close()


def _held(registry: Distribution) -> dict[tuple[str, str], str]:
    found = {name: registry.digest(*name) for name in PUSHED}
    return {name: digest for name, digest in found.items() if digest is not None}


def _executions(api: str, operation: str, **query: str) -> list[dict[str, Any]]:
    found = (parts.get(f"{api}/api/v1/executions", rule=REPLICA, **query) or {}).get("items", [])
    return [it for it in found if it["operation"] == operation]


def _deletions(api: str) -> list[dict[str, Any]]:
    found = (parts.get(f"{api}/api/v1/logs", replica=REPLICA, limit="1000") or {}).get("items", [])
    return [it for it in found if it["operation"] == "delete"]
