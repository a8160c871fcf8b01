"""Where a bench keeps its files and listens: blobs in memory where there is room, logs always on a disk."""

import random
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.table import Options, progress
from tests.support.parts import Process

_IN_MEMORY = Path("/dev/shm")


@contextmanager
def on_disk() -> Iterator[Path]:
    """For logs and databases: what makes them durable has its price, and it belongs to the figure."""
    with _folder(None) as folder:
        yield folder


@contextmanager
def for_blobs(options: Options, needed: int) -> Iterator[tuple[Path, str]]:
    """A folder for registries that will hold `needed` bytes in all, and what to call the place in a table."""
    parent = options.folder or (_IN_MEMORY if _has_room(needed) else Path(tempfile.gettempdir()))
    with _folder(parent) as folder:
        place = "tmpfs" if parent == _IN_MEMORY else f"disk ({parent})"
        progress(f"registries keep their blobs on {place}")
        yield folder, place


@contextmanager
def _folder(parent: Path | None) -> Iterator[Path]:
    """Gone afterwards, with all that runs, be it that an interrupt came before its name was known to who ends it."""
    with tempfile.TemporaryDirectory(prefix="regmesh-bench-", dir=parent) as folder:
        try:
            yield Path(folder)
        finally:
            for process in Process.begun:
                process.end()


def port() -> int:
    """A free port outside the range that connections take theirs from: it stays free until it is used."""
    while True:
        number = random.randrange(20_000, 32_000)
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", number))
            except OSError:
                continue
            return number


def _has_room(needed: int) -> bool:
    """Room on the tmpfs and in the memory behind it, twice over: others use it too."""
    if not _IN_MEMORY.is_dir():
        return False
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return min(available, shutil.disk_usage(_IN_MEMORY).free) > 2 * needed
