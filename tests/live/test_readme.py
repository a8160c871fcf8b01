"""README and the pages as a newcomer follows them: their files and commands, with free ports put in."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mesh.node.cli import app
from mesh.rules.validation import declarations
from tests.support import images, kafka_broker, parts
from tests.support.parts import Distribution, Process, until

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")]


def _blocks(page: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a page: language and text."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def _block(kind: str, first: str, page: str = "README.md") -> str:
    """The only block of this kind on the page that begins with `first`."""
    (found,) = [text for it, text in _blocks(ROOT / page) if it == kind and text.startswith(first)]
    return found


class Reader:
    """Follows a page in a folder of its own, on a machine where the ports that the page names are taken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {port: parts.free_port() for port in (5001, 5002, 8080, 8081, 8082)}

    def with_free_ports(self, text: str) -> str:
        for port, free in self.ports.items():
            text = text.replace(f":{port}", f":{free}")
        return text

    def run(self, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        server = f"http://127.0.0.1:{self.ports[8080]}"
        return subprocess.run(
            ["sh", "-ec", self.with_free_ports(command)], cwd=self.folder, capture_output=True, text=True, timeout=60,
            check=False, env={**os.environ, "PATH": path, "REGMESH_SERVER": server, **environment},
        )  # fmt: skip

    def registry(self, port: int, stanza: str | None) -> Distribution:
        made = Distribution(self.folder / str(port), self.ports[port])
        made.extra = yaml.safe_load(self.with_free_ports(stanza)) if stanza else {}
        return made


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    made = Reader(tmp_path)
    (tmp_path / "mesh.yaml").write_text(made.with_free_ports(_block("yaml", "regions:")))
    images.write_layout(tmp_path / "app", {"v1": images.image(layers=[b"a layer"])})
    return made


@pytest.fixture
def registries(reader: Reader) -> Iterator[tuple[Distribution, Distribution]]:
    source = reader.registry(5001, _block("yaml", "notifications:"))
    destination = reader.registry(5002, None)
    try:
        yield source.start(), destination.start()
    finally:
        source.end()
        destination.end()


@pytest.mark.real("docker-registry", "skopeo")
def test_two_registries_of_your_own(reader: Reader, registries: tuple[Distribution, Distribution]) -> None:
    _, destination = registries
    assert _block("sh", "regmesh up").strip() == "regmesh up -f mesh.yaml"
    up = parts.regmesh(
        reader.folder / "up.log", "up", "-f", str(reader.folder / "mesh.yaml"), "--data", str(reader.folder / "data"),
        "--listen", f"127.0.0.1:{reader.ports[8080]}",
    )  # fmt: skip
    try:
        until("up is ready", lambda: parts.get(f"http://127.0.0.1:{reader.ports[8080]}/readyz"), needs=[up])
        push, logs, inspect = _block("sh", "skopeo copy").splitlines()
        assert reader.run(push).returncode == 0
        until("the copy", lambda: destination.digest("game/app", "v1-global"))
        until("the log", lambda: "Succeed" in reader.run(logs).stdout)
        inspected = reader.run(inspect)
        assert inspected.returncode == 0, inspected.stderr
        assert json.loads(inspected.stdout)["Digest"] == destination.digest("game/app", "v1-global")
        assert reader.run(inspect.replace("5002", "5001")).returncode == 0
        assert (
            reader.run(push.replace("v1-global", "v2-global")).returncode == 0
        )  # the source notifies of it after that pull
        until("the second copy", lambda: destination.digest("game/app", "v2-global"))
        metrics = reader.run("curl -sf http://127.0.0.1:8080/metrics").stdout
        # The registry does not even send a pull, of this client or of the agent.
        assert 'regmesh_ignored_events_total{instance="game-cn"} 0.0' in metrics
        for command in _block("sh", "regmesh apply -f mesh.yaml --dry-run", "docs/operate.md").splitlines():
            done = reader.run(command)
            assert done.returncode == 0, (command, done.stderr)
    finally:
        up.end()


@pytest.mark.real("kafka")
def test_from_one_file_to_kafka(reader: Reader) -> None:
    """The commands of that page, in their order, the daemons side by side."""
    broker = kafka_broker.start(reader.folder / "kafka")
    daemons: list[Process] = []
    try:
        log = {"REGMESH_LOG": broker.url, "REGMESH_DATA": str(reader.folder / "data")}
        lines = [
            line.partition(" #")[0].strip()
            for line in _block("sh", "export REGMESH_LOG='kafka://kafka-1", "docs/kafka.md").splitlines()
        ]
        exports = [line for line in lines if line.startswith("export ")]
        assert exports[0].startswith("export REGMESH_LOG='kafka://")
        assert exports[1:] == ["export REGMESH_SECRETS_FOR=mesh.yaml"]
        log["REGMESH_SECRETS_FOR"] = str(reader.folder / "mesh.yaml")
        for command in (line for line in lines if line not in exports):
            program, *arguments = reader.with_free_ports(command).split()
            assert program == "regmesh"
            if arguments[0] in ("control", "producer", "agent"):
                daemons.append(
                    parts.regmesh(reader.folder / f"{arguments[0]}.log", *arguments, environment=log)
                )
                until(f"{arguments[0]} listens", lambda: "listening" in daemons[-1].output(), needs=daemons)
            else:
                done = reader.run(command, **log)
                assert done.returncode == 0, done.stderr
        assert "release-to-eu" in reader.run("regmesh get rules").stdout
        assert all(daemon.is_running() for daemon in daemons)
    finally:
        for daemon in daemons:
            daemon.end()
        broker.stop()


def test_every_yaml_of_readme_is_one_that_regmesh_takes() -> None:
    webhooks = _block("yaml", "webhooks:", "docs/webhooks.md")
    document = yaml.safe_load(_block("yaml", "regions:")) | yaml.safe_load(webhooks)
    assert declarations.judge(document)[1] == []


def test_every_command_of_a_page_exists(capsys: pytest.CaptureFixture[str]) -> None:
    commands = "\n".join(text for page in PAGES for kind, text in _blocks(page) if kind == "sh")
    words = set(re.findall(r"\bregmesh ([a-z][a-z-]*)\b", re.sub(r"#.*", "", commands)))
    assert words >= {"up", "apply", "get", "delete", "logs", "topics", "control", "producer", "agent"}
    for word in words:
        assert app.run([word, "--help"]) == 0, word
        assert f"Usage: regmesh {word}" in capsys.readouterr().out


def test_every_page_that_readme_names_is_there() -> None:
    for page in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / page).exists(), page
