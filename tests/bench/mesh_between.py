"""A mesh between two registries, as real processes: `regmesh up` on the embedded log, or three daemons on Kafka."""

import asyncio
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from mesh.clock import SystemClock
from mesh.credentials.secrets import Secrets
from mesh.node.engines import open_log
from schemas import topics
from schemas.codec import decode
from schemas.events import Event
from schemas.names import Region
from tests.bench.table import progress
from tests.support import kafka_broker, parts
from tests.support.parts import Distribution, Process, until
from tests.support.real_parts import why_missing

T = TypeVar("T")

EMBEDDED, KAFKA = "embedded log", "Kafka"


@dataclass
class Mesh:
    """Copies everything of `game-cn` in beijing to `game-eu` in frankfurt, on pushes or by hand."""

    folder: Path
    source: Distribution
    destination: Distribution
    log: str
    api: str
    intake: str
    trigger: str
    processes: dict[str, Process]

    @property
    def notifications(self) -> str:
        """The intake's URL for the source."""
        return f"{self.intake}/v1/notifications/game-cn"

    @property
    def agent(self) -> Process:
        """The process that copies."""
        return self.processes.get("agent") or self.processes["up"]

    def wipe(self) -> None:
        """Empties the destination, restarts it on its port, and waits until the disk has all writes."""
        self.destination.end()
        shutil.rmtree(self.destination.folder / "data", ignore_errors=True)
        self.destination.start()
        subprocess.run(["sync", "-f", str(self.destination.folder)], check=True)

    def entry(self, tag: str) -> dict[str, Any] | None:
        """Returns the tag's entry in the sync log."""
        found = parts.get(f"{self.api}/api/v1/logs", tag=tag)
        return found["items"][0] if found and found["items"] else None

    def until(self, what: str, look: Callable[[], T | None], *, within: float, every: float) -> T:
        """Waits like `parts.until`, and fails at once when a process of the mesh has ended."""
        return parts.until(what, look, within=within, every=every, needs=self.processes.values())

    def stop(self) -> None:
        """Stops all processes cleanly, so that the log can be read."""
        for process in self.processes.values():
            assert process.stop() == 0, process.output()[-2000:]

    def events(self) -> list[Event]:
        """Returns the events that the intake wrote. Call it after `stop`: the embedded log has one owner."""
        return asyncio.run(_events(self.log))


def logs() -> list[str]:
    """Returns the logs that can be measured here, and prints why Kafka cannot."""
    why = why_missing("kafka")
    if why is not None:
        progress(f"left out: all rows on Kafka: {why}")
    return [EMBEDDED] if why is not None else [EMBEDDED, KAFKA]


@contextmanager
def mesh_on(log: str, folder: Path, blobs: Path, *, trigger: str = "event_based") -> Iterator[Mesh]:
    """Yields a mesh that is ready, with its registries in `blobs`, on a broker of its own when `log` is Kafka.

    Its rule `all` runs by `trigger`.
    """
    with ExitStack() as stack:
        source, destination = (Distribution(blobs / name, parts.free_port()) for name in ("cn", "eu"))
        api, intake = (f"http://127.0.0.1:{parts.free_port()}" for _ in range(2))
        if log == EMBEDDED:
            url, intake = f"sqlite://{folder}/data/mesh.db", api
        else:
            url = stack.enter_context(broker(folder)).url
        mesh = Mesh(folder, source, destination, url, api, intake, trigger, {})
        if trigger == "event_based":
            source.notify = mesh.notifications
        for registry in (source, destination):
            stack.callback(registry.end)
            registry.start()
        stack.callback(_end, mesh)
        _start_up(mesh) if log == EMBEDDED else _start_daemons(mesh)
        yield mesh


@contextmanager
def broker(folder: Path) -> Iterator[kafka_broker.Broker]:
    """Runs a broker whose data is thrown away."""
    progress("starting Apache Kafka")
    started = kafka_broker.start(folder / "kafka")
    try:
        yield started
    finally:
        started.kill()


def _start_up(mesh: Mesh) -> None:
    _daemon(mesh, "up", mesh.api, "up", "-f", str(_mesh_file(mesh)), "--data", str(mesh.folder / "data"))


def _start_daemons(mesh: Mesh) -> None:
    file = str(_mesh_file(mesh))
    _run("topics", "create", "--log", mesh.log, "-f", file)
    agent = f"http://127.0.0.1:{parts.free_port()}"
    roles = {
        "control": (mesh.api, ()),
        "producer": (mesh.intake, ()),
        "agent": (agent, ("--region", "frankfurt")),
    }
    for role, (listen, options) in roles.items():
        data = str(mesh.folder / role)
        _daemon(mesh, role, listen, role, *options, "--log", mesh.log, "--data", data)
    _run("apply", "-f", file, "--server", mesh.api)


def _daemon(mesh: Mesh, name: str, url: str, *arguments: str) -> None:
    listen = url.removeprefix("http://")
    process = parts.regmesh(mesh.folder / f"{name}.log", *arguments, "--listen", listen)
    mesh.processes[name] = process
    until(f"{name} is ready", lambda: parts.get(f"{url}/readyz"), within=60, needs=[process])


def _run(*arguments: str) -> None:
    done = parts.run_regmesh(*arguments)
    assert done.returncode == 0, done.stderr


def _end(mesh: Mesh) -> None:
    for process in mesh.processes.values():
        process.end()


def _mesh_file(mesh: Mesh) -> Path:
    document = {
        "regions": [
            {"name": "beijing", "jurisdiction": "cn-mainland"},
            {"name": "frankfurt", "jurisdiction": "global"},
        ],
        "instances": [
            {"name": "game-cn", "account": "game", "region": "beijing", "url": mesh.source.url},
            {"name": "game-eu", "account": "game", "region": "frankfurt", "url": mesh.destination.url},
        ],
        "rules": [
            {"name": "all", "source": "game-cn", "destination": "game-eu", "trigger": {"type": mesh.trigger}}
        ],
    }
    file = mesh.folder / "mesh.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


async def _events(url: str) -> list[Event]:
    log = await open_log(url, clock=SystemClock(), secrets=Secrets({}))
    topic = topics.events(Region("beijing"))
    found: list[Event] = []
    try:
        ends = await log.end(topic)
        async for batch in log.follow(topic):
            found += [decode(record.value, Event) for record in batch.records if record.value]
            if all(batch.positions[number] >= end for number, end in ends.items()):
                break
    finally:
        await log.close()
    return found
