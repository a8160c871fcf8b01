"""Real clients pull through the gateway: skopeo, crane and containerd, from real registries, as all kinds of users."""

import asyncio
import base64
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml

from tests.support import images, kafka_broker, parts
from tests.support.containerd_daemon import Containerd, containerd
from tests.support.parts import Distribution, Process, until
from tests.support.token_registry import PASSWORD, USER, token_registry

pytestmark = [pytest.mark.real("docker-registry", "skopeo")]

MiB = 1024 * 1024
LAYER = os.urandom(2 * MiB)
IMAGE = images.image(layers=[LAYER, b"a small one"])
HUB = "hub.example.com"
REGIONS = [
    {"name": "beijing", "jurisdiction": "cn", "links": [{"to": "shanghai", "cost": 10}]},
    {"name": "shanghai", "jurisdiction": "cn"},
]


@dataclass
class Mesh:
    """An instance in Beijing with a replica in Shanghai, and the gateway of Shanghai."""

    folder: Path
    home: Distribution
    near: Distribution
    api: str
    gateway: str
    up: Process

    @property
    def host(self) -> str:
        return self.gateway.removeprefix("http://")

    def served(self, place: str) -> float:
        with urlopen(f"{self.gateway}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found = re.search(
            rf'^regmesh_gateway_requests_total{{place="{place}",status="200"}} (\S+)$', text, re.MULTILINE
        )
        return float(found[1]) if found else 0.0

    def push(self, tag: str, credentials: tuple[str, ...] = (), image: images.Image = IMAGE) -> None:
        """To the instance."""
        layout = images.write_layout(self.folder / "layout", {tag: image})
        parts.skopeo(
            "copy", "--preserve-digests", "--dest-tls-verify=false", *credentials, f"oci:{layout}:{tag}", f"docker://{self.home.host}/game/app:{tag}"
        )  # fmt: skip


def document(home: Distribution, near: Distribution, domain: str) -> dict[str, Any]:
    return {
        "regions": REGIONS,
        "instances": [
            {
                "name": "cn", "account": "game", "region": "beijing", "url": home.url, "domain": domain,
                "credentials": "CN",
            }
        ],
        "replicas": [{"instance": "cn", "region": "shanghai", "url": near.url, "credentials": "CN"}],
    }  # fmt: skip


@pytest.fixture
def mesh(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mesh]:
    """The domain is the parameter; `REGMESH_SECRET_CN` opens both registries where they ask for it."""
    domain, htpasswd = getattr(request, "param", ("localhost", None))
    api, at = (f"127.0.0.1:{parts.free_port()}" for _ in range(2))
    with parts.distributions(tmp_path, "home", "near") as (home, near):
        home.notify = f"http://{api}/v1/notifications/cn"
        for one in (home, near):
            if htpasswd:
                one.folder.mkdir(parents=True)
                users = subprocess.run(
                    ["htpasswd", "-Bbn", "-C", "4", USER, PASSWORD], capture_output=True, check=True
                )
                (one.folder / "htpasswd").write_bytes(users.stdout)
                one.extra = {"auth": {"htpasswd": {"realm": "test", "path": str(one.folder / "htpasswd")}}}
            one.start()
        file = tmp_path / "mesh.yaml"
        file.write_text(yaml.safe_dump(document(home, near, domain)))
        up = parts.regmesh(
            tmp_path / "up.log", "up", "-f", str(file), "--data", str(tmp_path / "data"), "--listen", api,
            "--gateway", f"shanghai={at}", environment={"REGMESH_SECRET_CN": f"{USER}:{PASSWORD}"},
        )  # fmt: skip
        made = Mesh(tmp_path, home, near, f"http://{api}", f"http://{at}", up)
        try:
            until("the gateway is ready", lambda: parts.get(f"{made.gateway}/readyz"), needs=[up])
            yield made
        finally:
            up.end()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Containerd]:
    with containerd(tmp_path / "containerd") as made:
        yield made


def pull_with_skopeo(mesh: Mesh, to: Path, *credentials: str) -> str:
    parts.skopeo(
        "copy", "--src-tls-verify=false", "--preserve-digests", *credentials,
        f"docker://localhost:{mesh.host.rpartition(':')[2]}/game/app:v1", f"oci:{to}:pulled",
    )  # fmt: skip
    return str(json.loads((to / "index.json").read_text())["manifests"][0]["digest"])


def pull_with_crane(mesh: Mesh, to: Path, **environment: str) -> str:
    name = f"localhost:{mesh.host.rpartition(':')[2]}/game/app:v1"
    done = subprocess.run(
        [str(parts.CRANE), "pull", "--insecure", "--format=oci", name, str(to)],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return str(json.loads((to / "index.json").read_text())["manifests"][0]["digest"])


Pull = Callable[[Mesh, Path], str]


@pytest.mark.parametrize(
    "pull", [pull_with_skopeo, pytest.param(pull_with_crane, marks=pytest.mark.real("crane"))]
)
def test_a_pull_is_served_near_and_by_the_next_nearest_when_the_near_registry_stops(
    mesh: Mesh, pull: Pull
) -> None:
    mesh.push("v1")
    until("the replica has it", lambda: mesh.near.digest("game/app", "v1"))
    assert pull(mesh, mesh.folder / "first") == IMAGE.digest
    assert mesh.served("cn@shanghai") >= 4
    assert mesh.served("cn") == 0
    mesh.near.end()
    assert pull(mesh, mesh.folder / "second") == IMAGE.digest
    assert mesh.served("cn") >= 4
    assert pull(mesh, mesh.folder / "third") == IMAGE.digest


def test_slow_clients_of_a_large_layer_cost_no_memory(mesh: Mesh) -> None:
    layer = os.urandom(64 * MiB)
    large = images.image(layers=[layer])
    mesh.push("large", image=large)
    until("the replica has it", lambda: mesh.near.digest("game/app", "large"))
    url = f"http://localhost:{mesh.host.rpartition(':')[2]}/v2/game/app/blobs/{large.blob_descriptors[1].digest}"
    with urlopen(url, timeout=30) as answer:
        assert answer.read() == layer
    before = mesh.up.peak_memory()
    with ExitStack() as stack:
        slow = [stack.enter_context(urlopen(url, timeout=30)) for _ in range(12)]
        for answer in slow:
            assert answer.read(MiB) == layer[:MiB]
        time.sleep(1.5)  # whatever would be read ahead is read by now
        grown = mesh.up.peak_memory() - before
        assert slow[0].read() == layer[MiB:]
    assert grown < 64 * MiB, f"{grown / MiB:.0f} MiB for 12 clients"


@pytest.mark.real("containerd", "ctr")
@pytest.mark.parametrize("mesh", [(HUB, None)], indirect=True, ids=[HUB])
@pytest.mark.parametrize("by", ["gateway", "places"])
def test_containerd_pulls_by_the_hosts_toml_that_regmesh_writes(
    mesh: Mesh, daemon: Containerd, by: str
) -> None:
    mesh.push("v1")
    until("the replica has it", lambda: mesh.near.digest("game/app", "v1"))
    named = ("--gateway", mesh.gateway) if by == "gateway" else ()
    written = parts.run_regmesh("nearby", "hosts-toml", "--region", "shanghai", "--server", mesh.api, *named)
    assert written.returncode == 0, written.stderr
    (daemon.hosts / HUB).mkdir()
    (daemon.hosts / HUB / "hosts.toml").write_text(written.stdout)
    fetched = daemon.fetch(f"{HUB}/game/app:v1")
    assert fetched.returncode == 0, fetched.stderr
    for digest, body in {**IMAGE.blobs, IMAGE.digest: IMAGE.manifest.body}.items():
        assert daemon.content(digest) == body
    assert (mesh.served("cn@shanghai") >= 4) == (by == "gateway")
    daemon.remove_images()
    mesh.near.end()
    again = daemon.fetch(f"{HUB}/game/app:v1")
    assert again.returncode == 0, again.stderr
    assert daemon.content(IMAGE.digest) == IMAGE.manifest.body
    assert (mesh.served("cn") >= 3) == (by == "gateway")


@pytest.mark.real("htpasswd", "crane", "containerd", "ctr")
@pytest.mark.parametrize("mesh", [("localhost", "basic")], indirect=True, ids=["basic"])
def test_basic_credentials_of_the_client_open_what_the_registry_lets_them(
    mesh: Mesh, daemon: Containerd
) -> None:
    mesh.push("v1", ("--dest-creds", f"{USER}:{PASSWORD}"))
    until(
        "the replica has it",
        lambda: [it for it in parts.get(f"{mesh.api}/api/v1/logs")["items"] if it["status"] == "Succeed"],
    )
    port = mesh.host.rpartition(":")[2]
    assert pull_with_skopeo(mesh, mesh.folder / "a", "--src-creds", f"{USER}:{PASSWORD}") == IMAGE.digest
    for wrong in (("--src-no-creds",), ("--src-creds", f"{USER}:guess")):
        with pytest.raises(AssertionError, match=r"(?i)unauthorized|authentication required"):
            pull_with_skopeo(mesh, mesh.folder / "b", *wrong)
    assert pull_with_crane(mesh, mesh.folder / "c", DOCKER_CONFIG=str(logged_in(mesh, port))) == IMAGE.digest
    image = f"localhost:{port}/game/app:v1"
    assert daemon.fetch(image, "--plain-http").returncode != 0
    fetched = daemon.fetch(image, "--plain-http", "--user", f"{USER}:{PASSWORD}")
    assert fetched.returncode == 0, fetched.stderr
    assert daemon.content(IMAGE.digest) == IMAGE.manifest.body


def logged_in(mesh: Mesh, port: str) -> Path:
    """What `crane auth login` leaves behind."""
    folder = mesh.folder / "docker"
    done = subprocess.run(
        [str(parts.CRANE), "auth", "login", "--insecure", f"localhost:{port}", "-u", USER, "-p", PASSWORD],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "DOCKER_CONFIG": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.real("crane", "containerd", "ctr")
async def test_tokens_of_a_server_that_only_the_gateway_reaches(mesh: Mesh, daemon: Containerd) -> None:
    """The instance is a registry that asks for tokens now; nothing mirrors it."""
    async with token_registry("game/app", IMAGE) as inner:
        await asyncio.to_thread(with_tokens_of, mesh, daemon, inner.url)
        assert {"repository:game/app:pull"} <= set(inner.issued.values())
        assert inner.forms == [] or all(form["username"] == USER for form in inner.forms)


def with_tokens_of(mesh: Mesh, daemon: Containerd, url: str) -> None:
    done = parts.run_regmesh("delete", "replica", "cn@shanghai", "--server", mesh.api)
    assert done.returncode == 0, done.stderr
    changed = mesh.folder / "changed.yaml"
    (home,) = document(mesh.home, mesh.near, "localhost")["instances"]
    changed.write_text(yaml.safe_dump({"instances": [home | {"url": url}]}))
    done = parts.run_regmesh("apply", "-f", str(changed), "--server", mesh.api)
    assert done.returncode == 0, done.stderr
    port = mesh.host.rpartition(":")[2]
    assert pull_with_skopeo(mesh, mesh.folder / "a", "--src-creds", f"{USER}:{PASSWORD}") == IMAGE.digest
    config = mesh.folder / "docker" / "config.json"
    config.parent.mkdir()
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    config.write_text(json.dumps({"auths": {f"localhost:{port}": {"auth": auth}}}))
    assert pull_with_crane(mesh, mesh.folder / "b", DOCKER_CONFIG=str(config.parent)) == IMAGE.digest
    fetched = daemon.fetch(f"localhost:{port}/game/app:v1", "--plain-http", "--user", f"{USER}:{PASSWORD}")
    assert fetched.returncode == 0, fetched.stderr
    daemon.remove_images()
    reported = parts.run_regmesh(
        "nearby", "hosts-toml", "--region", "shanghai", "--gateway", mesh.gateway, "--server", mesh.api
    )
    (daemon.hosts / "localhost").mkdir()
    (daemon.hosts / "localhost" / "hosts.toml").write_text(reported.stdout)
    before = mesh.served("cn")
    mirrored = daemon.fetch(
        "localhost/game/app:v1", "--user", f"{USER}:{PASSWORD}"
    )  # the gateway, by its address
    assert mirrored.returncode == 0, mirrored.stderr
    assert mesh.served("cn") >= before + 4
    assert daemon.content(IMAGE.digest) == IMAGE.manifest.body
    with pytest.raises(AssertionError, match=r"(?i)unauthorized|authentication"):
        pull_with_skopeo(mesh, mesh.folder / "c", "--src-creds", f"{USER}:guess")


@pytest.mark.real("kafka")
def test_the_gateway_is_a_daemon_of_its_own_on_kafka_and_a_miss_is_replicated(tmp_path: Path) -> None:
    broker = kafka_broker.start(tmp_path / "kafka")
    ports = {name: parts.free_port() for name in ("control", "producer", "agent", "gateway")}
    daemons = {}
    try:
        with parts.distributions(tmp_path, "home", "near") as (home, near):
            home.start(), near.start()
            file = tmp_path / "mesh.yaml"
            reported = document(home, near, HUB)
            file.write_text(yaml.safe_dump(reported))
            api = f"http://127.0.0.1:{ports['control']}"
            made = parts.run_regmesh("topics", "create", "-f", str(file), "--log", broker.url)
            assert made.returncode == 0, made.stderr
            secrets_for = ("--secrets-for", str(file))
            for name, options in {
                "control": secrets_for, "producer": secrets_for, "agent": ("--region", "shanghai", *secrets_for),
                "gateway": ("--region", "shanghai", "--domain", HUB),
            }.items():  # fmt: skip
                daemons[name] = parts.regmesh(
                    tmp_path / f"{name}.log", name, *options, "--log", broker.url, "--data", str(tmp_path / name),
                    "--listen", f"127.0.0.1:{ports[name]}", environment={"REGMESH_SECRET_CN": f"{USER}:{PASSWORD}"},
                )  # fmt: skip
            until("control is ready", lambda: parts.get(f"{api}/readyz"), within=60, needs=daemons.values())
            applied = parts.run_regmesh("apply", "-f", str(file), "--server", api)
            assert applied.returncode == 0, applied.stderr
            mesh = Mesh(tmp_path, home, near, api, f"http://127.0.0.1:{ports['gateway']}", daemons["gateway"])
            until(
                "the gateway is ready",
                lambda: parts.get(f"{mesh.gateway}/readyz"),
                within=60,
                needs=daemons.values(),
            )
            until("the replica was filled", lambda: all_ended(api), within=60)
            mesh.push("v1")  # it notifies nobody: only the miss can bring it over
            assert pull_with_skopeo(mesh, tmp_path / "first") == IMAGE.digest
            assert mesh.served("cn") >= 1
            until("the miss is replicated", lambda: near.digest("game/app", "v1"), within=60)
            assert pull_with_skopeo(mesh, tmp_path / "second") == IMAGE.digest
            assert mesh.served("cn@shanghai") >= 1
            assert daemons["gateway"].stop() == 0
    finally:
        for daemon in daemons.values():
            daemon.end()
        broker.stop()


def all_ended(api: str) -> bool:
    """The execution that fills the replica, which finds nothing yet."""
    found = (parts.get(f"{api}/api/v1/executions") or {"items": []})["items"]
    return bool(found) and all(it["status"] != "InProgress" for it in found)
