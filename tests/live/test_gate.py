"""An ingress in front of the source that answers by itself for a while: nothing is lost by it, and nothing deleted."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml

from tests.support import images, parts
from tests.support.gate import BAD_GATEWAY, NOT_FOUND_PAGE, WEB_PAGE, Answer, Gate, gate
from tests.support.parts import Distribution, Process, until

pytestmark = [pytest.mark.real("docker-registry", "skopeo")]


class Site:
    """Two registries, a gate in front of the first, and `regmesh up` that knows the first by its gate."""

    def __init__(self, folder: Path, source: Distribution, destination: Distribution, entrance: Gate) -> None:
        self.folder, self.source, self.destination, self.gate = folder, source, destination, entrance
        self.api = f"http://127.0.0.1:{parts.free_port()}"
        self.up: Process | None = None

    def start(self) -> None:
        document = {
            "regions": [{"name": name, "jurisdiction": "eu"} for name in ("oslo", "rome")],
            "instances": [
                {"name": "first", "account": "game", "region": "oslo", "url": self.gate.url},
                {"name": "second", "account": "game", "region": "rome", "url": self.destination.url},
            ],
            "rules": [{"name": "all", "source": "first", "destination": "second", "deletion": True}],
        }
        file = self.folder / "mesh.yaml"
        file.write_text(yaml.safe_dump(document))
        self.up = parts.regmesh(
            self.folder / "up.log", "up", "-f", str(file), "--data", str(self.folder / "data"),
            "--listen", self.api.removeprefix("http://"),
        )  # fmt: skip
        until("up is ready", lambda: parts.get(f"{self.api}/readyz"), within=60, needs=[self.up])

    def push(self, name: str, tag: str) -> str:
        """Pushes an image past the gate; its digest."""
        layout = images.write_layout(self.folder / name, {name: images.image(layers=[name.encode() * 100])})
        parts.push(layout, name, self.source, f"game/app:{tag}")
        return str(self.source.digest("game/app", tag))

    def entries(self, tag: str) -> list[dict[str, Any]]:
        found = parts.get(f"{self.api}/api/v1/logs", tag=tag)
        return found["items"] if found else []


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with parts.distributions(tmp_path, "first", "second") as (source, destination):
        source.start()
        destination.start()
        with gate(source.url) as entrance:
            made = Site(tmp_path, source, destination, entrance)
            source.end()
            source.notify = f"{made.api}/v1/notifications/first"
            source.start()
            made.start()
            yield made
            if made.up is not None:
                made.up.end()


@pytest.mark.parametrize("answer", [NOT_FOUND_PAGE, BAD_GATEWAY, WEB_PAGE], ids=["404", "502", "web page"])
def test_a_push_behind_a_closed_gate_comes_when_it_opens(site: Site, answer: Answer) -> None:
    site.gate.answers(answer)
    digest = site.push("one", "v1")
    until("the mesh has asked the gate", lambda: len(site.gate.requests) >= 3, within=30)
    time.sleep(10)  # as long as an ingress answers so while its backend restarts
    site.gate.opens()
    until("the push arrives", lambda: site.destination.digest("game/app", "v1") == digest, within=75)
    assert [entry["status"] for entry in site.entries("v1")] in ([], ["Succeed"])


def test_a_tag_that_the_source_has_is_not_deleted(site: Site) -> None:
    first = site.push("one", "v1")
    until("the first push arrives", lambda: site.destination.digest("game/app", "v1") == first, within=30)
    site.gate.answers(NOT_FOUND_PAGE)
    url = f"{site.source.url}/v2/game/app/manifests/{first}"
    with urlopen(Request(url, method="DELETE"), timeout=10) as answer:
        assert answer.status == 202
    second = site.push("two", "v1")
    deadline = time.monotonic() + 16
    while time.monotonic() < deadline:
        assert site.destination.digest("game/app", "v1") is not None, (
            "the destination lost a tag of its source"
        )
        time.sleep(0.2)
    site.gate.opens()
    until("the second push arrives", lambda: site.destination.digest("game/app", "v1") == second, within=75)
    with pytest.raises(HTTPError):
        urlopen(f"{site.source.url}/v2/game/app/manifests/{first}", timeout=10)
