"""The whole product on real parts: skopeo pushes to a docker-registry, and pulls from another what regmesh copied.

On the embedded log `regmesh up` is one process; on Apache Kafka producer, agent and control are processes of their own.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from tests.support import images, kafka_broker, parts
from tests.support.parts import Distribution, Process, Receiver, until

pytestmark = [pytest.mark.real("docker-registry", "skopeo")]

HOOK_SECRET = "whsec_" + "bGl2ZS10ZXN0LWhvb2stc2VjcmV0LTEyMzQ="
SECRETS = {"REGMESH_SECRET_HOOK": HOOK_SECRET, "REGMESH_SECRET_INTAKE": "intake-secret-of-the-live-test"}
MiB = 1024 * 1024


@dataclass
class Line:
    """Two registries, the mesh between them, and a receiver of webhooks."""

    folder: Path
    source: Distribution
    destination: Distribution
    receiver: Receiver
    api: str
    intake: str
    daemons: dict[str, Process] = field(default_factory=dict)
    start_agent: Callable[[], None] = lambda: None

    @property
    def agent(self) -> Process:
        return self.daemons["agent"]

    def document(self) -> dict[str, Any]:
        return {
            "regions": [
                {"name": "beijing", "jurisdiction": "cn-mainland"},
                {"name": "frankfurt", "jurisdiction": "global"},
            ],
            "instances": [
                {
                    "name": "game-cn", "account": "game", "region": "beijing", "url": self.source.url,
                    "kind": self.source.kind, "intake_secret": "INTAKE",
                },
                {"name": "game-eu", "account": "game", "region": "frankfurt", "url": self.destination.url},
            ],
            "rules": [
                {
                    "name": "release-to-eu", "source": "game-cn", "destination": "game-eu",
                    "filters": [{"type": "name", "value": "game/**"}],
                }
            ],
            "webhooks": [{"name": "ci", "account": "game", "url": self.receiver.url, "secret": "HOOK"}],
        }  # fmt: skip

    def mesh_file(self, **changes: Any) -> Path:
        file = self.folder / "mesh.yaml"
        file.write_text(yaml.safe_dump({**self.document(), **changes}, sort_keys=False))
        return file

    def log(self, **query: str) -> list[dict[str, Any]]:
        found = parts.get(f"{self.api}/api/v1/logs", **query)
        return found["items"] if found else []

    def ended(self, repository: str, tag: str, *, within: float = 60) -> dict[str, Any]:
        """Waits until a task of the tag has succeeded, and returns its entry in the sync log."""
        query = {"repository": repository, "tag": tag, "status": "Succeed"}
        return until(
            f"{repository}:{tag} in the sync log",
            lambda: self.log(**query),
            within=within,
            needs=self.daemons.values(),
        )[0]


@pytest.fixture
def registries(tmp_path: Path) -> Iterator[tuple[Distribution, Distribution]]:
    with parts.distributions(tmp_path, "cn", "eu") as (source, destination):
        yield source, destination


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver(HOOK_SECRET)
    yield made
    made.close()


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[kafka_broker.Broker]:
    """A broker of the test's own, because tests declare different things with the same names in `mesh.state`."""
    broker = kafka_broker.start(tmp_path / "kafka")
    yield broker
    broker.stop()


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.real("kafka"))])
def line(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    registries: tuple[Distribution, Distribution],
    receiver: Receiver,
) -> Iterator[Line]:
    source, destination = registries
    api, intake = (f"http://127.0.0.1:{parts.free_port()}" for _ in range(2))
    if request.param == "sqlite":
        intake = api
    source.notify = f"{intake}/v1/notifications/game-cn"
    source.headers = {"Authorization": [f"Bearer {SECRETS['REGMESH_SECRET_INTAKE']}"]}
    source.start()
    destination.start()
    made = Line(tmp_path, source, destination, receiver, api, intake)
    try:
        if request.param == "sqlite":
            _up(made)
        else:
            _daemons(made, request.getfixturevalue("kafka").url)
        yield made
    finally:
        for daemon in made.daemons.values():
            daemon.end()


def _up(line: Line) -> None:
    def start() -> None:
        line.daemons["agent"] = parts.regmesh(
            line.folder / "up.log", "up", "-f", str(line.mesh_file()), "--data", str(line.folder / "data"),
            "--listen", line.api.removeprefix("http://"), environment=SECRETS,
        )  # fmt: skip
        until("up is ready", lambda: parts.get(f"{line.api}/readyz"), needs=[line.agent])

    line.start_agent = start
    start()


def _daemons(line: Line, log: str) -> None:
    made = parts.run_regmesh("topics", "create", "--log", log, "-f", str(line.mesh_file()))
    assert made.returncode == 0, made.stderr

    def daemon(name: str, *arguments: str) -> None:
        line.daemons[name] = parts.regmesh(
            line.folder / f"{name}.log",
            *arguments,
            "--log",
            log,
            "--data",
            str(line.folder / name),
            environment=SECRETS,
        )

    def start_agent() -> None:
        listen = f"127.0.0.1:{parts.free_port()}"
        daemon("agent", "agent", "--region", "frankfurt", "--listen", listen)
        until("agent is ready", lambda: parts.get(f"http://{listen}/readyz"), needs=[line.agent])

    mesh_file = str(line.mesh_file())  # whose webhook may be signed with HOOK
    daemon("control", "control", "--listen", line.api.removeprefix("http://"), "--secrets-for", mesh_file)
    daemon("producer", "producer", "--listen", line.intake.removeprefix("http://"))
    until("control is ready", lambda: parts.get(f"{line.api}/readyz"), needs=line.daemons.values())
    until("producer is ready", lambda: parts.get(f"{line.intake}/readyz"), needs=line.daemons.values())
    line.start_agent = start_agent
    start_agent()
    applied = parts.run_regmesh("apply", "-f", str(line.mesh_file()), "--server", line.api)
    assert applied.returncode == 0, applied.stderr


def test_what_skopeo_pushes_here_skopeo_pulls_there(line: Line) -> None:
    image = images.image(layers=[os.urandom(3 * MiB), os.urandom(MiB), b"small"])
    parts.push(images.write_layout(line.folder / "pushed", {"v1": image}), "v1", line.source, "game/app:v1")
    entry = line.ended("game/app", "v1")
    assert parts.pull(line.destination, "game/app:v1", line.folder / "pulled") == image.digest
    size = sum(part.size for part in image.blob_descriptors)
    assert (entry["digest"], entry["bytes_transferred"], entry["bytes_total"]) == (image.digest, size, size)
    assert (entry["source"], entry["destination"]) == ("game-cn/game/app:v1", "game-eu/game/app:v1")
    assert (entry["rule"], entry["replica"], entry["error"]) == ("release-to-eu", None, None)
    hook = until("a webhook", lambda: line.receiver.verified)[0]
    assert (hook["specversion"], hook["type"]) == ("1.0", "replication.succeeded")
    assert hook["data"] == entry
    assert line.receiver.refused == 0
    shown = parts.run_regmesh("logs", "--tag", "v1", "-o", "json", "--server", line.api)
    assert json.loads(shown.stdout) == [entry]


def test_a_multi_arch_index_and_a_gibibyte_travel_in_little_memory(
    line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    index = images.index([images.image(layers=[os.urandom(MiB), bytes([n])]) for n in range(3)])
    block = os.urandom(MiB)
    large = images.image(layers=[bytes([n]) * 16 + block * 256 for n in range(4)])
    layout = images.write_layout(line.folder / "pushed", {"multi": index, "large": large})
    del block
    sizes = sum(part.size for part in large.blob_descriptors)
    digest = large.digest
    large.blobs.clear()
    parts.push(layout, "multi", line.source, "game/app:multi")
    assert line.ended("game/app", "multi")["digest"] == index.digest
    assert parts.pull(line.destination, "game/app:multi", line.folder / "pulled") == index.digest

    parts.push(layout, "large", line.source, "game/large:v1")
    entry = line.ended("game/large", "v1", within=180)
    assert (entry["digest"], entry["bytes_transferred"]) == (digest, sizes)
    assert parts.pull(line.destination, "game/large:v1", line.folder / "pulled-large") == digest
    peak = line.agent.peak_memory()
    with capsys.disabled():
        print(f"\npeak resident memory of the agent's process after 1 GiB: {peak / MiB:.0f} MiB")
    assert peak < 150 * MiB


def test_a_rule_applied_and_an_image_pushed_at_once(line: Line) -> None:
    """Ten times: a changed rule, and at once a push that matches only this rule."""
    for number in range(10):
        repository = f"new{number}/app"
        rule = {
            "name": "new", "source": "game-cn", "destination": "game-eu",
            "filters": [{"type": "name", "value": f"new{number}/*"}],
        }  # fmt: skip
        image = images.image(layers=[f"{number}".encode()])
        layout = images.write_layout(line.folder / f"new{number}", {"v1": image})
        assert parts.put(f"{line.api}/api/v1/rules/new", rule) in (200, 201)
        parts.push(layout, "v1", line.source, f"{repository}:v1")
        assert line.ended(repository, "v1")["digest"] == image.digest


def test_a_tag_pushed_many_times_ends_at_the_last(line: Line) -> None:
    count = 25
    pushed: list[str] = []
    seen: list[str] = []
    builds = {f"b{number}": images.image(layers=[f"build {number}".encode()]) for number in range(count)}
    layout = images.write_layout(line.folder / "builds", builds)
    for tag, build in builds.items():
        parts.push(layout, tag, line.source, "game/app:latest")
        pushed.append(build.digest)
        seen.append(line.destination.digest("game/app", "latest") or "")
    until("the last digest", lambda: line.destination.digest("game/app", "latest") == pushed[-1])
    time.sleep(6)  # longer than a tag may take to settle: no late write may move it back
    seen.append(line.destination.digest("game/app", "latest") or "")
    order = [pushed.index(digest) for digest in seen if digest]
    assert order == sorted(order)
    assert order[-1] == count - 1
    until("all ends", lambda: len(line.log(tag="latest")) == count)
    assert {entry["status"] for entry in line.log(tag="latest")} <= {"Succeed", "Skipped"}


def test_kill_in_the_middle_of_a_copy_and_restart(line: Line) -> None:
    block = os.urandom(MiB)
    image = images.image(layers=[bytes([n]) * 16 + block * 100 for n in range(3)])
    parts.push(images.write_layout(line.folder / "pushed", {"v1": image}), "v1", line.source, "game/app:v1")
    until("a copy that runs", lambda: _uploads(line.destination), within=20, every=0.002)
    line.agent.kill()
    assert line.destination.digest("game/app", "v1") is None, "the copy was over before the kill"
    line.start_agent()
    entry = line.ended("game/app", "v1")
    assert entry["digest"] == image.digest
    assert parts.pull(line.destination, "game/app:v1", line.folder / "pulled") == image.digest
    until("nothing InProgress", lambda: line.log(status="InProgress") == [])
    assert [it["status"] for it in line.log(tag="v1")] == ["Succeed"]
    assert len(until("a webhook", lambda: line.receiver.verified)) == 1


def test_a_clean_stop_ends_by_itself_and_says_so(line: Line) -> None:
    for name, daemon in line.daemons.items():
        assert daemon.stop() == 0, f"{name}: {daemon.output()[-2000:]}"
        assert "Traceback" not in daemon.output()


def test_an_unreachable_registry_stops_only_its_own_place(line: Line) -> None:
    document = line.document()
    deleted = {
        "name": "gone",
        "account": "game",
        "region": "frankfurt",
        "url": f"http://127.0.0.1:{parts.free_port()}",
    }
    rule = {"name": "to-gone", "source": "game-cn", "destination": "gone"}
    file = line.mesh_file(instances=[*document["instances"], deleted], rules=[*document["rules"], rule])
    assert parts.run_regmesh("apply", "-f", str(file), "--server", line.api).returncode == 0
    image = images.image(layers=[b"x"])
    parts.push(images.write_layout(line.folder / "pushed", {"v1": image}), "v1", line.source, "game/app:v1")
    assert line.ended("game/app", "v1")["rule"] == "release-to-eu"
    failed = until("the failure", lambda: parts.get(f"{line.api}/api/v1/parked")["items"], within=60)[0]
    assert (failed["rule"], failed["error"]["code"], failed["error"]["side"]) == (
        "to-gone",
        "unreachable",
        "destination",
    )
    state = until(
        "the place's state",
        lambda: parts.get(f"{line.api}/api/v1/instances/{quote('gone')}")["state"],
        within=60,
    )
    assert state.startswith("Failed: ")
    assert "Failed" in parts.run_regmesh("get", "instances", "--server", line.api).stdout


def _uploads(registry: Distribution) -> bool:
    """Returns whether an open upload in the registry's storage has more than a MiB."""
    for folder, _, files in os.walk(
        registry.folder / "data"
    ):  # unlike `glob`, ignores folders deleted meanwhile
        if Path(folder).parent.name == "_uploads" and "data" in files:
            with suppress(FileNotFoundError):
                if (Path(folder) / "data").stat().st_size > MiB:
                    return True
    return False
