"""A mesh of daemons on real parts: docker-registry, Apache Kafka, and one agent process for each region."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml

from tests.support import parts
from tests.support.parts import Distribution, Process, until

SECRETS = {
    "REGMESH_SECRET_RELAY": "relay-secret-of-the-live-test",
    "REGMESH_SECRET_RELAY_HOSTS": "relays",
}


@dataclass
class Fleet:
    """The registries by place (`cn`, `cn@shanghai`) and the daemons of a mesh; the test declares its state."""

    folder: Path
    log: str
    api: str = field(default_factory=lambda: f"http://127.0.0.1:{parts.free_port()}")
    intake: str = field(default_factory=lambda: f"http://127.0.0.1:{parts.free_port()}")
    registries: dict[str, Distribution] = field(default_factory=dict)
    daemons: dict[str, Process] = field(default_factory=dict)
    listens: dict[str, str] = field(default_factory=dict)  # by region, of its agent

    def registry(self, place: str, folder: Path | None = None, **settings: Any) -> Distribution:
        """Starts a registry in `folder` (the fleet's by default). That of an instance notifies the intake."""
        notify = None if "@" in place else f"{self.intake}/v1/notifications/{place}"
        made = Distribution((folder or self.folder) / place, notify=notify, **settings)
        self.registries[place] = made.start()
        return made

    def start(self, document: Mapping[str, Any], agents: Sequence[str]) -> None:
        """Starts control, the producer and an agent for each region of `agents`, and applies `document`."""
        file = self.mesh_file(document)
        self.run("topics", "create", "--log", self.log, "-f", str(file))
        self._daemon("control", "control", "--listen", self.api.removeprefix("http://"))
        self._daemon("producer", "producer", "--listen", self.intake.removeprefix("http://"))
        until("control is ready", lambda: parts.get(f"{self.api}/readyz"), needs=self.daemons.values())
        until(
            "the producer is ready", lambda: parts.get(f"{self.intake}/readyz"), needs=self.daemons.values()
        )
        self.run("apply", "-f", str(file), "--server", self.api)
        for region in agents:
            self.start_agent(region)
        until(
            "all agents are live",
            lambda: self.agents() >= set(agents),
            within=90,
            needs=self.daemons.values(),
        )

    def start_agent(self, region: str, *, relay: bool = True) -> Process:
        """Starts the agent of a region, with a relay address unless `relay` is false."""
        listen = self.listens.setdefault(region, f"127.0.0.1:{parts.free_port()}")
        more = ("--relay-url", f"http://{listen}") if relay else ()
        return self._daemon(f"agent {region}", "agent", "--region", region, "--listen", listen, *more)

    def agents(self) -> set[str]:
        """Returns the regions of the agents that control knows."""
        found = parts.get(f"{self.api}/api/v1/agents") or {"items": []}
        return {one["region"] for one in found["items"]}

    def know_each_other(self, regions: Sequence[str]) -> None:
        """Returns when each agent of `regions` has seen a heartbeat of all the others."""
        others = f'regmesh_awake_regions{{region="%s"}} {len(regions) - 1}.0'
        for region in regions:
            until(
                f"{region} knows all regions",
                lambda name=region: others % name in self._metrics(name),
                within=60,
                needs=self.daemons.values(),
            )

    def _metrics(self, region: str) -> str:
        with urlopen(f"http://{self.listens[region]}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def mesh_file(self, document: Mapping[str, Any]) -> Path:
        """Writes `document` as mesh.yaml and returns its path."""
        file = self.folder / "mesh.yaml"
        file.write_text(yaml.safe_dump(dict(document), sort_keys=False))
        return file

    def replicated(self, instance: str, url: str, regions: Sequence[str]) -> dict[str, Any]:
        """Returns a document with one instance at `url`, a replica of it in each region, and relays everywhere."""
        return {
            "regions": [
                {"name": name, "jurisdiction": "global", "relay": {"secret": "RELAY"}}
                for name in ("home", *regions)
            ],
            "instances": [{"name": instance, "account": "game", "region": "home", "url": url}],
            "replicas": [
                {"instance": instance, "region": name, "url": self.registries[f"{instance}@{name}"].url}
                for name in regions
            ],
        }

    def logs(self, **query: str) -> list[dict[str, Any]]:
        """Returns sync log entries."""
        found = parts.get(f"{self.api}/api/v1/logs", limit="1000", **query)
        return found["items"] if found else []

    def run(self, *arguments: str) -> str:
        """Runs a regmesh command, asserts that it succeeds, and returns its output."""
        done = parts.run_regmesh(*arguments)
        assert done.returncode == 0, f"regmesh {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def _daemon(self, name: str, *arguments: str) -> Process:
        data = ("--log", self.log, "--data", str(self.folder / name.replace(" ", "-")))
        log = self.folder / f"{name.replace(' ', '-')}.log"
        self.daemons[name] = parts.regmesh(log, *arguments, *data, environment=SECRETS)
        return self.daemons[name]


@contextmanager
def fleet(folder: Path, log: str) -> Iterator[Fleet]:
    """Yields a fleet on the log at the URL `log`, and ends its processes afterwards."""
    made = Fleet(folder, log)
    with ExitStack() as stack:
        try:
            yield made
        finally:
            for process in made.daemons.values():
                stack.callback(process.end)
            for registry in made.registries.values():
                stack.callback(registry.end)
