"""Many small images from registry to registry: `skopeo sync` and `regmesh sync --wait`, then again with nothing to do.

Each round starts with an empty destination, restarted on its port. Both times are those of the command that a user
types, with its start. Every image has three layers of its own and a config.
"""

import statistics
import subprocess
import time
from collections.abc import Callable, Iterator

import yaml

from tests.bench import mesh_between, workplace
from tests.bench.client import Client, MiB
from tests.bench.mesh_between import Mesh
from tests.bench.table import Options, Row, progress, spread
from tests.support import parts

NEEDS = ("docker-registry", "skopeo")
_LAYERS = [20_000, 10_000, 5_000]
_TAGS = 10  # of each repository
_ROUNDS = 3


def rows(options: Options) -> Iterator[Row]:
    """Yields the rows of the group `many`."""
    repositories = 1 if options.quick else 20
    with (
        workplace.on_disk() as folder,
        workplace.for_blobs(options, 64 * MiB) as (blobs, place),
        mesh_between.mesh_on(mesh_between.EMBEDDED, folder, blobs, trigger="manual") as mesh,
    ):
        race = _Race(mesh, repositories)
        race.run(1 if options.quick else _ROUNDS)
        yield from race.rows(f"{repositories * _TAGS} images of 3 layers, {place}, embedded log")


class _Race:
    def __init__(self, mesh: Mesh, repositories: int) -> None:
        self._mesh = mesh
        self._named = [f"game/app-{number}" for number in range(repositories)]
        self._list = mesh.folder / "sync.yaml"
        self._list.write_text(
            yaml.safe_dump(
                {mesh.source.host: {"tls-verify": False, "images": {name: [] for name in self._named}}}
            )
        )
        self._whole: dict[str, list[float]] = {"skopeo": [], "regmesh": []}
        self._nothing: dict[str, list[float]] = {"skopeo": [], "regmesh": []}
        self._digests = self._push()

    def run(self, rounds: int) -> None:
        contenders: list[tuple[str, Callable[[], None]]] = [
            ("skopeo", self._skopeo),
            ("regmesh", self._regmesh),
        ]
        for number in range(rounds):
            for name, sync in contenders:
                self._mesh.wipe()
                for kept in (self._whole, self._nothing):
                    began = time.perf_counter()
                    sync()
                    kept[name].append(time.perf_counter() - began)
                self._check("game/" if name == "regmesh" else "")
                whole, nothing = self._whole[name][-1], self._nothing[name][-1]
                progress(f"many {number + 1}/{rounds}: {name} {whole:.2f} s, then {nothing:.2f} s")
            contenders.reverse()

    def rows(self, where: str) -> Iterator[Row]:
        for kept, what, goal in (
            (self._whole, "many: all of them", "3x at least"),
            (self._nothing, "many: a pass that finds nothing to do", "10x at least"),
        ):
            for name, command in (("skopeo", "skopeo sync"), ("regmesh", "regmesh sync --wait")):
                yield Row(f"{what}: `{command}`", where, f"{spread(kept[name])} s")
            ratio = statistics.median(kept["skopeo"]) / statistics.median(kept["regmesh"])
            yield Row(f"{what}: time of skopeo over regmesh", where, f"{ratio:.2f}x", goal)

    def _push(self) -> dict[tuple[str, str], str]:
        """Pushes the images to the source; returns digests by repository and tag."""
        progress(f"pushing {len(self._named) * _TAGS} images")
        client = Client(self._mesh.source)
        digests = {}
        for name in self._named:
            for number in range(_TAGS):
                manifest = client.push_blobs(name, _LAYERS)
                digests[name, f"v{number}"] = client.put_manifest(name, f"v{number}", manifest)
        client.close()
        return digests

    def _check(self, folder: str) -> None:
        """Asserts that all images were copied; skopeo keeps only the last part of a name."""
        client = Client(self._mesh.destination)
        for (name, tag), digest in self._digests.items():
            assert client.head(f"{folder}{name.rpartition('/')[2]}", tag) == digest, (name, tag)
        client.close()

    def _skopeo(self) -> None:
        command = ["skopeo", "sync", "--src", "yaml", "--dest", "docker", "--preserve-digests"]
        subprocess.run(
            [*command, "--dest-tls-verify=false", str(self._list), self._mesh.destination.host],
            check=True, capture_output=True, timeout=600,
        )  # fmt: skip

    def _regmesh(self) -> None:
        done = parts.run_regmesh("sync", "all", "--wait", "--server", self._mesh.api)
        assert done.returncode == 0, done.stderr
