"""containerd as a client without Docker: a daemon of the test's own, controlled by `ctr`."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.parts import Process, until

# These need a kernel feature or a machine-wide folder; a test only fetches content.
_NOT_NEEDED = [
    "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.overlayfs", "io.containerd.snapshotter.v1.zfs",
]  # fmt: skip


@dataclass
class Containerd:
    """A running daemon."""

    address: str
    hosts: Path  # a folder of `HOST/hosts.toml`

    def ctr(self, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        """Runs `ctr` against the daemon."""
        return subprocess.run(
            ["ctr", "--address", self.address, *arguments], capture_output=True, timeout=60, check=False
        )

    def fetch(self, image: str, *options: str) -> "subprocess.CompletedProcess[bytes]":
        """Fetches the content of an image through the hosts that are configured."""
        return self.ctr("content", "fetch", "--hosts-dir", str(self.hosts), *options, image)

    def content(self, digest: str) -> bytes:
        """Returns fetched content by its digest."""
        found = self.ctr("content", "get", digest)
        assert found.returncode == 0, found.stderr
        return found.stdout

    def remove_images(self) -> None:
        """Removes all images and, with them, their content."""
        for name in self.ctr("images", "ls", "-q").stdout.decode().split():
            assert self.ctr("images", "rm", "--sync", name).returncode == 0


@contextmanager
def containerd(folder: Path) -> Iterator[Containerd]:
    """Runs a daemon with all its files in `folder`."""
    folder.mkdir()
    hosts = folder / "certs.d"
    hosts.mkdir()
    address = folder / "c.sock"
    config = folder / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\ndisabled_plugins = {_NOT_NEEDED}\n'
        f'[grpc]\n  address = "{address}"\n[ttrpc]\n  address = "{address}.ttrpc"\n'
    )
    process = Process(["containerd", "--config", str(config)], folder / "containerd.log", os.environ)
    made = Containerd(str(address), hosts)
    try:
        until("containerd answers", lambda: made.ctr("version").returncode == 0, needs=[process])
        yield made
    finally:
        process.end()
