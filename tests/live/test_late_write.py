"""A tag's PUT that lands late never leaves the destination behind its source."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import yaml

from tests.support import images, kafka_broker, parts
from tests.support.fleet import Fleet, fleet
from tests.support.gate import Answer, Gate, gate
from tests.support.parts import Distribution, Process, until

pytestmark = [pytest.mark.real("docker-registry", "skopeo")]

TAG = ("PUT", "/v2/game/app/manifests/latest")


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[tuple[Fleet, Gate]]:
    """Two instances and a rule on Kafka, with a gate in front of the destination."""
    broker = kafka_broker.start(tmp_path / "kafka")
    try:
        with fleet(tmp_path, broker.url) as made:
            made.registry("first")
            with gate(made.registry("second").url) as entrance:
                made.start(document(made.registries["first"].url, entrance.url), ["rome"])
                yield made, entrance
    finally:
        broker.stop()


def document(source: str, destination: str) -> dict[str, object]:
    return {
        "regions": [{"name": name, "jurisdiction": "eu"} for name in ("oslo", "rome")],
        "instances": [
            {"name": "first", "account": "game", "region": "oslo", "url": source},
            {"name": "second", "account": "game", "region": "rome", "url": destination},
        ],
        "rules": [{"name": "all", "source": "first", "destination": "second"}],
    }


def push(folder: Path, source: Distribution, name: str) -> str:
    layout = images.write_layout(folder / name, {name: images.image(layers=[name.encode() * 100])})
    parts.push(layout, name, source, "game/app:latest")
    return str(source.digest("game/app", "latest"))


@pytest.mark.real("kafka")
def test_an_agent_that_was_stopped_in_its_last_write_mends_what_it_overwrites(
    mesh: tuple[Fleet, Gate],
) -> None:
    """The write waits in a proxy while its agent is stopped, another agent copies a newer push, then it lands."""
    site, entrance = mesh
    landing = threading.Event()
    held = iter([landing])

    def first_write_of_the_tag(method: str, path: str) -> float:
        if (method, path) == TAG and (event := next(held, None)) is not None:
            event.wait(120)
        return 0.0

    entrance.hold = first_write_of_the_tag
    push(site.folder, site.registries["first"], "old")
    until("the tag is written", lambda: TAG in entrance.requests, within=60)
    stopped = site.daemons["agent rome"]
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        new = push(site.folder, site.registries["first"], "new")
        listen = f"127.0.0.1:{parts.free_port()}"
        site._daemon("second agent", "agent", "--region", "rome", "--listen", listen)
        destination = site.registries["second"]
        until("the newer push arrives", lambda: destination.digest("game/app", "latest") == new, within=90)
        landing.set()
        until("the older write lands", lambda: destination.digest("game/app", "latest") != new, within=30)
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    until("it is mended", lambda: destination.digest("game/app", "latest") == new, within=30)
    stopped.end()


class Up:
    """Two registries, a gate in front of the destination, and `regmesh up`."""

    def __init__(self, folder: Path, source: Distribution, destination: Distribution, entrance: Gate) -> None:
        self.folder, self.source, self.destination, self.gate = folder, source, destination, entrance
        self.api = f"http://127.0.0.1:{parts.free_port()}"
        source.notify = f"{self.api}/v1/notifications/first"
        self.file = folder / "mesh.yaml"
        self.process: Process | None = None

    def start(self) -> None:
        self.process = parts.regmesh(
            self.folder / "up.log", "up", "-f", str(self.file), "--data", str(self.folder / "data"),
            "--listen", self.api.removeprefix("http://"),
        )  # fmt: skip
        until("up is ready", lambda: parts.get(f"{self.api}/readyz"), within=60, needs=[self.process])

    def push(self, name: str) -> str:
        return push(self.folder, self.source, name)

    def until_there(self, digest: str, within: float = 60) -> None:
        def is_there() -> bool:
            return self.destination.digest("game/app", "latest") == digest

        until(f"the destination names {digest}", is_there, within=within)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    with (
        parts.distributions(tmp_path, "first", "second") as (source, destination),
        gate(destination.start().url) as entrance,
    ):
        made = Up(tmp_path, source, destination, entrance)
        source.start()
        made.file.write_text(yaml.safe_dump(document(source.url, entrance.url)))
        made.start()
        yield made
        if made.process is not None:
            made.process.end()


@pytest.mark.parametrize("kills", [1, 2])
def test_a_write_that_lands_after_its_agent_was_killed_is_mended(up: Up, kills: int) -> None:
    """The write waits in a proxy while `up` is killed and started again and copies a newer push, then it lands."""
    landing = threading.Event()
    held = iter([landing])

    def first_write_of_the_tag(method: str, path: str) -> float:
        if (method, path) == TAG and (event := next(held, None)) is not None:
            event.wait(120)
        return 0.0

    up.gate.hold = first_write_of_the_tag
    old = up.push("old")
    until("the tag is written", lambda: TAG in up.gate.requests, within=60)
    new = ""
    for number in range(kills):
        assert up.process is not None
        up.process.kill()
        up.start()
        new = up.push(f"new{number}")
        up.until_there(new)
    landing.set()
    up.until_there(old, within=30)
    up.until_there(new)
    assert parts.get(f"{up.api}/api/v1/parked")["items"] == []


def test_a_write_that_a_proxy_gave_up_and_that_lands_later_is_mended(up: Up) -> None:
    bodies: list[bytes] = []

    def give_up_once(method: str, path: str) -> Answer | None:
        return Answer(504) if (method, path) == TAG and not bodies else None

    def keep(method: str, path: str, body: bytes, status: int) -> None:
        if (method, path) == TAG and status == 504:
            bodies.append(body)

    up.gate.rule, up.gate.note = give_up_once, keep
    old = up.push("old")
    up.until_there(old)
    new = up.push("new")
    up.until_there(new)
    headers = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
    late = Request(f"{up.destination.url}{TAG[1]}", bodies[0], headers, method="PUT")
    with urlopen(late, timeout=10) as answer:
        assert answer.status == 201
    assert up.destination.digest("game/app", "latest") == old
    up.until_there(new)
