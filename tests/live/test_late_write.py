"""A tag's PUT that lands late never leaves the destination behind its source."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import images, kafka_broker, parts
from tests.support.fleet import Fleet, fleet
from tests.support.gate import Gate, gate
from tests.support.parts import until

pytestmark = [pytest.mark.real("docker-registry", "skopeo", "kafka")]

TAG = ("PUT", "/v2/game/app/manifests/latest")


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[tuple[Fleet, Gate]]:
    """Two instances and a rule on Kafka, with a gate in front of the destination."""
    broker = kafka_broker.start(tmp_path / "kafka")
    try:
        with fleet(tmp_path, broker.url) as made:
            made.registry("first")
            with gate(made.registry("second").url) as entrance:
                document = {
                    "regions": [{"name": name, "jurisdiction": "eu"} for name in ("oslo", "rome")],
                    "instances": [
                        {
                            "name": "first",
                            "account": "game",
                            "region": "oslo",
                            "url": made.registries["first"].url,
                        },
                        {"name": "second", "account": "game", "region": "rome", "url": entrance.url},
                    ],
                    "rules": [{"name": "all", "source": "first", "destination": "second"}],
                }
                made.start(document, ["rome"])
                yield made, entrance
    finally:
        broker.stop()


def push(mesh: Fleet, name: str) -> str:
    layout = images.write_layout(mesh.folder / name, {name: images.image(layers=[name.encode() * 100])})
    parts.push(layout, name, mesh.registries["first"], "game/app:latest")
    return str(mesh.registries["first"].digest("game/app", "latest"))


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
    push(site, "old")
    until("the tag is written", lambda: TAG in entrance.requests, within=60)
    stopped = site.daemons["agent rome"]
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        new = push(site, "new")
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
