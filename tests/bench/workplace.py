"""Where a bench keeps its files: blobs in memory where there is room, logs always on a disk."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.table import Options, progress
from tests.support.parts import Process

_IN_MEMORY = Path("/dev/shm")


@contextmanager
def on_disk() -> Iterator[Path]:
    """Yields a folder for logs and databases, on a disk because the price of durability belongs to the figure."""
    with _folder(None) as folder:
        yield folder


@contextmanager
def for_blobs(options: Options, needed: int) -> Iterator[tuple[Path, str]]:
    """Yields a folder for registries that will hold `needed` bytes, and what a table calls it."""
    parent = options.folder or (_IN_MEMORY if _has_room(needed) else Path(tempfile.gettempdir()))
    with _folder(parent) as folder:
        place = "tmpfs" if parent == _IN_MEMORY else f"disk ({parent})"
        progress(f"registries keep their blobs on {place}")
        yield folder, place


@contextmanager
def _folder(parent: Path | None) -> Iterator[Path]:
    """Deleted afterwards, when all processes have been ended, those too that an interrupt left behind."""
    with tempfile.TemporaryDirectory(prefix="regmesh-bench-", dir=parent) as folder:
        try:
            yield Path(folder)
        finally:
            for process in Process.started:
                process.end()


def _has_room(needed: int) -> bool:
    """Returns whether the tmpfs and the memory behind it have room for twice as much, because others use it too."""
    if not _IN_MEMORY.is_dir():
        return False
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return min(available, shutil.disk_usage(_IN_MEMORY).free) > 2 * needed
