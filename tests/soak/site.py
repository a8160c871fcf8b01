"""What a soak runs: a source that notifies regmesh, a replica, a rule's destination, and regmesh as processes.

A gate stands between the source and the intake, so that the ledger sees which notifications were answered. Others
stand in front of registries where a scenario misbehaves in their place.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.soak.ledger import Ledger
from tests.support import kafka_broker, parts
from tests.support.gate import Gate, gate
from tests.support.kafka_broker import Broker
from tests.support.parts import Distribution, Process, until

SOURCE, REPLICA, DESTINATION = "source", "replica", "destination"
_RULE_REGION = "frankfurt"


@dataclass
class Site:
    """Registries by place and daemons by name; a daemon that was killed is started again with `start`."""

    folder: Path
    registries: dict[str, Distribution]
    gates: dict[str, Gate]  # in front of some of them
    notifications: Gate  # between the source and the intake
    ledger: Ledger
    api: str
    intake: str
    broker: Broker | None = None
    commands: dict[str, list[str]] = field(default_factory=dict)
    daemons: dict[str, Process] = field(default_factory=dict)

    @property
    def destinations(self) -> dict[str, str]:
        """The URLs of the destinations themselves, past their gates."""
        return {place: self.registries[place].url for place in (REPLICA, DESTINATION)}

    def declared_url(self, place: str) -> str:
        """Returns the URL by which regmesh knows a registry: that of its gate, where it has one."""
        return self.gates[place].url if place in self.gates else self.registries[place].url

    def document(self) -> dict[str, Any]:
        """Returns what is declared: a replica, and a rule that copies everything and follows deletions."""
        regions = {"beijing": "cn", "shanghai": "cn", _RULE_REGION: "eu"}
        return {
            "regions": [{"name": name, "jurisdiction": where} for name, where in regions.items()],
            "instances": [
                {"name": "game", "account": "game", "region": "beijing", "url": self.declared_url(SOURCE)},
                {
                    "name": "eu",
                    "account": "game",
                    "region": _RULE_REGION,
                    "url": self.declared_url(DESTINATION),
                },
            ],
            "replicas": [{"instance": "game", "region": "shanghai", "url": self.declared_url(REPLICA)}],
            "rules": [
                {"name": "all", "source": "game", "destination": "eu", "deletion": True, "backfill": True}
            ],
        }

    def start(self, name: str) -> None:
        """Starts a daemon, without waiting until it is ready."""
        log = self.folder / f"{name.replace(' ', '-')}.log"
        self.daemons[name] = parts.regmesh(log, *self.commands[name])

    def kill(self, name: str) -> None:
        """Kills a daemon as a power cut would."""
        self.daemons[name].kill()

    def suspend(self, name: str) -> None:
        """Makes a daemon hang until `resume`."""
        os.kill(self.daemons[name].pid, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Continues after `suspend`."""
        os.kill(self.daemons[name].pid, signal.SIGCONT)

    def until_ready(self) -> None:
        """Waits until control answers and, where the intake is a process of its own, that too."""
        for url in {self.api, self.intake}:
            until(f"{url} is ready", lambda at=url: parts.get(f"{at}/readyz"), within=90)

    def write_mesh_file(self) -> Path:
        """Writes mesh.yaml and returns its path."""
        file = self.folder / "mesh.yaml"
        file.write_text(yaml.safe_dump(self.document(), sort_keys=False))
        return file


@contextmanager
def embedded(folder: Path, gates: Sequence[str] = ()) -> Iterator[Site]:
    """Yields a site whose regmesh is one process, `up`, with gates in front of the registries of these places."""
    with _registries(folder, gates, intake_is_api=True) as site:
        file = site.write_mesh_file()
        listen = site.api.removeprefix("http://")
        site.commands["up"] = ["up", "-f", str(file), "--data", str(folder / "data"), "--listen", listen]
        site.start("up")
        site.until_ready()
        yield site


@contextmanager
def on_kafka(folder: Path) -> Iterator[Site]:
    """Yields a site whose regmesh is control, a producer and three agents, two of them of one region, on Kafka."""
    with _registries(folder, (), intake_is_api=False) as site:
        file, broker = site.write_mesh_file(), kafka_broker.start(folder / "kafka")
        site.broker = broker
        try:
            _run("topics", "create", "--log", broker.url, "-f", str(file))
            daemons = {
                "control": ["control", "--listen", site.api.removeprefix("http://")],
                "producer": ["producer", "--listen", site.intake.removeprefix("http://")],
                "agent shanghai": ["agent", "--region", "shanghai"],
                "agent frankfurt": ["agent", "--region", _RULE_REGION],
                "agent frankfurt 2": ["agent", "--region", _RULE_REGION],
            }
            for name, command in daemons.items():
                own = ["--log", broker.url, "--data", str(folder / name.replace(" ", "-"))]
                listen = [] if "--listen" in command else ["--listen", f"127.0.0.1:{parts.free_port()}"]
                site.commands[name] = [*command, *listen, *own]
                site.start(name)
            site.until_ready()
            _run("apply", "-f", str(file), "--server", site.api)
            until("all agents are live", lambda: _agents(site) == 3, within=90)
            yield site
        finally:
            broker.kill()


@contextmanager
def _registries(folder: Path, gated: Sequence[str], *, intake_is_api: bool) -> Iterator[Site]:
    """Yields the registries with their gates; ends every process that was started for the site."""
    api = f"http://127.0.0.1:{parts.free_port()}"
    intake = api if intake_is_api else f"http://127.0.0.1:{parts.free_port()}"
    folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(folder / "ledger.jsonl")
    registries = {place: Distribution(folder / place) for place in (SOURCE, REPLICA, DESTINATION)}
    with ExitStack() as stack:
        notifications = stack.enter_context(gate(intake))
        notifications.note = lambda method, path, body, status: (
            ledger.accept(body) if status // 100 == 2 else None
        )
        registries[SOURCE].extra = _notifying(f"{notifications.url}/v1/notifications/game")
        for registry in registries.values():
            stack.callback(registry.end)
            registry.start()
        gates = {place: stack.enter_context(gate(registries[place].url)) for place in gated}
        site = Site(folder, registries, gates, notifications, ledger, api, intake)
        stack.callback(lambda: [process.end() for process in site.daemons.values()])
        yield site


def _notifying(url: str) -> dict[str, Any]:
    """Returns the configuration that README.md recommends: the registry does not notify of pulls."""
    endpoint = {
        "name": "regmesh", "url": url, "timeout": "1s", "threshold": 3, "backoff": "1s",
        "ignore": {"actions": ["pull"], "mediatypes": ["none"]},
    }  # fmt: skip
    return {"notifications": {"endpoints": [endpoint]}}


def _run(*arguments: str) -> None:
    done = parts.run_regmesh(*arguments)
    if done.returncode != 0:
        raise RuntimeError(f"regmesh {' '.join(arguments)}: {done.stderr}")


def _agents(site: Site) -> int:
    return len((parts.get(f"{site.api}/api/v1/agents") or {"items": []})["items"])
