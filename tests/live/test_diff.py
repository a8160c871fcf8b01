"""`regmesh diff` between two docker-registries: finds each thing that is wrong at a replica, and mends it."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

from mesh.registry.client import open_endpoint
from mesh.registry.port import digest_of
from schemas.completions import Side
from schemas.names import Repository, Tag
from tests.soak.fill import document, start_up
from tests.support import attached, images, parts
from tests.support.parts import Distribution, Process, run_regmesh, until

pytestmark = [pytest.mark.real("docker-registry")]

NAME = Repository("team/app")
TAGS = {
    tag: images.image(layers=[tag.encode() * 1000])
    for tag in ("deleted", "moved", "torn", "unsigned", "kept")
}
SIGNATURE = attached.attachment(TAGS["unsigned"].manifest, attached.SIGNATURE, b"signed")


class Mesh:
    """An instance with five tags, and its replica, whose registry caches which blobs it has."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.api = folder, f"http://127.0.0.1:{parts.free_port()}"
        self.file = folder / "mesh.yaml"
        self.source = Distribution(folder / "game")
        data = str(folder / "replica" / "data")
        storage = {
            "filesystem": {"rootdirectory": data},
            "cache": {"blobdescriptor": "inmemory"},
            "delete": {"enabled": True},
        }
        self.replica = Distribution(folder / "replica", extra={"storage": storage})
        self.up: Process | None = None

    def start(self) -> None:
        self.source.start()
        self.replica.start()
        asyncio.run(_push(self.source))
        self.file.write_text(yaml.safe_dump(document(self.source, self.replica)))
        self.up = start_up(self.folder, self.file, self.api)

    def diff(self, *options: str) -> CompletedProcess[str]:
        return run_regmesh("diff", "game", "game@shanghai", "--server", self.api, *options)

    def kinds(self, *options: str) -> dict[str, str]:
        found = json.loads(self.diff("-o", "json", *options).stdout)
        assert found["errors"] == []
        return {it["tag"]: it["kind"] for it in found["differences"]}

    def has_all(self) -> bool:
        wanted = {tag: str(image.digest) for tag, image in TAGS.items()}
        signature = str(SIGNATURE.digest)
        found = {tag: self.replica.digest(NAME, tag) for tag in TAGS}
        return found == wanted and self.replica.digest(NAME, signature) == signature

    def tag_folder(self, tag: str) -> Path:
        return self.folder / f"replica/data/docker/registry/v2/repositories/{NAME}/_manifests/tags/{tag}"

    def blob_folder(self, digest: str) -> Path:
        encoded = digest.partition(":")[2]
        return self.folder / f"replica/data/docker/registry/v2/blobs/sha256/{encoded[:2]}/{encoded}"

    def damage(self) -> None:
        """Does to the replica's storage what disks and people do."""
        shutil.rmtree(self.tag_folder("deleted"))
        asyncio.run(_move(self.replica, "moved", "kept"))
        (self.blob_folder(digest_of(b"torn" * 1000)) / "data").unlink()
        shutil.rmtree(self.tag_folder(attached.cosign_tag(TAGS["unsigned"].digest, "x").removesuffix(".x")))

    def end(self) -> None:
        for one in (self.up, self.source.process, self.replica.process):
            if one is not None:
                one.end()


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    opened = Mesh(tmp_path)
    try:
        opened.start()
        until("the fill", opened.has_all)
        yield opened
    finally:
        opened.end()


def test_what_is_wrong_at_a_replica_is_found_and_mended(mesh: Mesh) -> None:
    equal = mesh.diff("--deep", "--exit-code")
    assert (equal.returncode, equal.stderr) == (0, "regmesh: 5 tags compared: no difference\n")
    mesh.damage()
    wrong = {"deleted": "missing", "moved": "different", "unsigned": "referrer_missing"}
    assert mesh.kinds("-f", str(mesh.file)) == wrong
    assert mesh.kinds("--deep") == {**wrong, "torn": "content_missing"}
    assert mesh.diff("--exit-code", "--tag", "kept").returncode == 0
    assert mesh.diff("--exit-code", "--tag", "deleted").returncode == 1

    repaired = mesh.diff("--deep", "--repair")
    assert repaired.returncode == 0, repaired.stderr
    until("the replica is equal", lambda: mesh.diff("--deep", "--exit-code").returncode == 0, within=60)
    assert mesh.has_all()
    assert (mesh.blob_folder(digest_of(b"torn" * 1000)) / "data").read_bytes() == b"torn" * 1000


def test_a_comparison_that_is_incomplete_fails(mesh: Mesh) -> None:
    mesh.replica.end()
    failed = mesh.diff()
    assert failed.returncode == 1
    assert "regmesh: not compared: " in failed.stderr
    assert mesh.diff("--rule", "nothing").returncode == 2


async def _push(registry: Distribution) -> None:
    endpoint = open_endpoint("game", registry.url, None)
    try:
        client = endpoint.registry(Side.DESTINATION)
        for tag, image in TAGS.items():
            await images.push(client, NAME, Tag(tag), image)
        await attached.push(client, NAME, TAGS["unsigned"].manifest, SIGNATURE)
    finally:
        await endpoint.close()


async def _move(registry: Distribution, tag: str, to: str) -> None:
    endpoint = open_endpoint("replica", registry.url, None)
    try:
        await endpoint.registry(Side.DESTINATION).write_manifest(NAME, Tag(tag), TAGS[to].manifest)
    finally:
        await endpoint.close()
