"""What a bench prints: a Markdown table on stdout, progress on stderr."""

import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mesh.clock import SystemClock


@dataclass(frozen=True)
class Options:
    """The options of the command line."""

    rounds: int = 5
    quick: bool = False  # tiny sizes: does it run at all?
    long: bool = False  # also the rows that take minutes
    folder: Path | None = None  # where registries keep their blobs; None: in memory where there is room


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    what: str
    where: str
    measured: str
    to_reach: str = ""


def progress(text: str) -> None:
    """Prints a line to stderr."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def markdown(rows: Iterable[Row]) -> str:
    """Returns the table."""
    lines = ["| what | where | measured | to reach |", "| --- | --- | --- | --- |"]
    lines += [
        # a bar inside a cell would end it
        "| " + " | ".join(text.replace("|", "\\|") for text in _cells(row)) + " |"
        for row in rows
    ]
    return "\n".join(lines)


def circumstances() -> str:
    """Returns when, on which commit and on which machine the figures were measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{SystemClock().now():%Y-%m-%d %H:%M} UTC; {_commit()}; {_processor()}, "
        f"{os.cpu_count()} cores, {memory:.0f} GiB; "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}; {load()} at the start; "
        f"`{' '.join(['python -m tests.bench', *sys.argv[1:]])}`"
    )


def load() -> str:
    """Returns the load average of the last minute."""
    return f"load average {os.getloadavg()[0]:.1f}"


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Returns `median (least to most)`."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def quantile(values: Sequence[float], share: float) -> float:
    """Returns the value that `share` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _cells(row: Row) -> tuple[str, ...]:
    return (row.what, row.where, row.measured, row.to_reach)


def _commit() -> str:
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "no commit known"
    return f"commit {described.stdout.strip()}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
