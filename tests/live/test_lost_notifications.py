"""What a registry forgets to notify comes by itself: docker-registry keeps notifications in memory until it ends."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh.registry.client import open_endpoint
from schemas.completions import Side
from schemas.names import Repository, Tag
from tests.soak.fill import differences, document, start_up
from tests.support import images, parts
from tests.support.gate import BAD_GATEWAY, Gate
from tests.support.parts import Distribution, Process, until

pytestmark = [pytest.mark.real("docker-registry")]

NAME = "team/app"
Document = Callable[[Distribution, Distribution], dict[str, Any]]


class Mesh:
    """An instance whose registry notifies `regmesh up` through a gate, and its replica, or another instance."""

    def __init__(self, folder: Path, declared: Document = document, older: Sequence[str] = ()) -> None:
        """`older` are tags that the instance holds before anything is declared."""
        self.folder, self.api = folder, f"http://127.0.0.1:{parts.free_port()}"
        self.gate = Gate(self.api)
        self.source = Distribution(folder / "game", notify=f"{self.gate.url}/v1/notifications/game").start()
        self.replica = Distribution(folder / "replica").start()
        self.file = folder / "mesh.yaml"
        self.file.write_text(yaml.safe_dump(declared(self.source, self.replica)))
        if older:
            self.push(*older)
            self.restart_source()  # it forgets to notify them
        self.up = self.start()

    def start(self) -> Process:
        return start_up(self.folder, self.file, self.api)

    def push(self, *tags: str) -> None:
        asyncio.run(_push(self.source, tags))

    def restart_source(self) -> None:
        assert self.source.process is not None
        self.source.process.kill()
        self.source.start()

    def is_equal(self) -> bool:
        return not differences(self.source, self.replica)

    def executions(self) -> list[tuple[str, str]]:
        """Returns the trigger and the status of each execution, newest first."""
        found = parts.get(f"{self.api}/api/v1/executions", rule="game@shanghai")["items"]
        return [(it["trigger"], it["status"]) for it in found]

    def end(self) -> None:
        for one in (self.up, self.source.process, self.replica.process):
            if one is not None:
                one.end()
        self.gate.close()


def rule_without_backfill(source: Distribution, destination: Distribution) -> dict[str, Any]:
    """The rule that most people begin with."""
    return {
        "regions": [{"name": name, "jurisdiction": "cn"} for name in ("beijing", "shanghai")],
        "instances": [
            {"name": "game", "account": "game", "region": "beijing", "url": source.url},
            {"name": "copy", "account": "game", "region": "shanghai", "url": destination.url},
        ],
        "rules": [{"name": "all", "source": "game", "destination": "copy"}],
    }


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    opened = Mesh(tmp_path)
    yield opened
    opened.end()


def test_what_a_killed_registry_forgot_while_the_mesh_was_down_comes_within_a_minute(mesh: Mesh) -> None:
    mesh.push("first")
    until("the first tag", lambda: mesh.replica.digest(NAME, "first"))
    until("the end of the fill", lambda: mesh.executions() == [("backfill", "Succeed")])
    mesh.up.kill()
    mesh.push(*(f"v{number}" for number in range(60)))
    mesh.restart_source()
    mesh.up = mesh.start()
    until("all tags", mesh.is_equal, within=60)
    assert mesh.replica.digest(NAME, "v59") == mesh.source.digest(NAME, "v59") is not None
    until(
        "the end of the comparison",
        lambda: mesh.executions() == [("reconcile", "Succeed"), ("backfill", "Succeed")],
    )


def test_what_a_registry_forgot_in_a_short_restart_comes_with_its_next_notification(mesh: Mesh) -> None:
    """It is back within a second, so that no agent sees that it was away."""
    mesh.push("first")
    until("the first tag", lambda: mesh.replica.digest(NAME, "first"))
    until("the end of the fill", lambda: mesh.executions() == [("backfill", "Succeed")])
    mesh.push("second")
    until("a tag that a notification brought", lambda: mesh.replica.digest(NAME, "second"))
    mesh.gate.answers(BAD_GATEWAY)
    mesh.push("forgotten")
    mesh.restart_source()
    mesh.gate.opens()
    mesh.push("next")
    until("all tags", mesh.is_equal, within=60)
    assert mesh.replica.digest(NAME, "forgotten") == mesh.source.digest(NAME, "forgotten") is not None
    until("the comparison", lambda: mesh.executions() == [("reconcile", "Succeed"), ("backfill", "Succeed")])


def test_a_rule_without_backfill_gets_what_was_forgotten_and_nothing_older(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path, rule_without_backfill, older=("older", "latest"))
    try:
        until("the baseline", lambda: (parts.get(f"{mesh.api}/api/v1/rules/all") or {}).get("baseline"))
        mesh.push("first")
        until("the first tag", lambda: mesh.replica.digest(NAME, "first"))
        mesh.up.kill()
        forgotten = [f"v{number}" for number in range(60)]
        mesh.push(*forgotten)
        asyncio.run(_push(mesh.source, ("latest",), b"moved"))
        mesh.restart_source()
        mesh.up = mesh.start()
        for tag in (*forgotten, "latest"):
            digest = mesh.source.digest(NAME, tag)
            assert digest is not None
            until(tag, lambda tag=tag, digest=digest: mesh.replica.digest(NAME, tag) == digest, within=60)
        assert mesh.replica.digest(NAME, "older") is None
    finally:
        mesh.end()


async def _push(registry: Distribution, tags: tuple[str, ...], content: bytes = b"") -> None:
    endpoint = open_endpoint("game", registry.url, None)
    try:
        for tag in tags:
            image = images.image(layers=[tag.encode() + content])
            await images.push(endpoint.registry(Side.DESTINATION), Repository(NAME), Tag(tag), image)
    finally:
        await endpoint.close()
