"""The figures of docs/benchmarks.md in one run: `python -m tests.bench [--only copy,latency,...]`.

The table goes to stdout, progress to stderr. It starts the real parts and ends them, also on Ctrl-C.
"""

import argparse
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import copies, diff, intake, latency, many, memory, replication, rules, scale
from tests.bench.table import Options, Row, circumstances, markdown, progress
from tests.support.real_parts import why_missing

Group = Callable[[Options], Iterator[Row]]

GROUPS: dict[str, tuple[tuple[str, ...], Group]] = {
    "copy": (copies.NEEDS, copies.rows),
    "many": (many.NEEDS, many.rows),
    "latency": (latency.NEEDS, latency.rows),
    "intake": (intake.NEEDS, intake.rows),
    "diff": (diff.NEEDS, diff.rows),
    "memory": (memory.NEEDS, memory.rows),
    "rules": (rules.NEEDS, rules.rows),
    "replication": (replication.NEEDS, replication.rows),
    "scale": (scale.NEEDS, scale.rows),
}


def main() -> int:
    """Measures the groups that were asked for; returns the exit code."""
    arguments = _arguments()
    for how in (signal.SIGTERM, signal.SIGINT):  # a shell that starts us in the background has SIGINT ignored
        signal.signal(how, _interrupt)
    given = circumstances()
    found: list[Row] = []
    code = 0
    try:
        for name in arguments.only:
            code |= _measure(name, arguments, found)
    except KeyboardInterrupt:
        progress("interrupted; the rows measured until then:")
        code = 130
    print(f"{given}\n\n{markdown(found)}")
    return code


def _measure(name: str, arguments: argparse.Namespace, found: list[Row]) -> int:
    """Adds a group's rows to `found`; a group that fails is reported, and the next one runs."""
    needs, rows = GROUPS[name]
    missing = [f"{part}: {why}" for part in needs if (why := why_missing(part)) is not None]
    if missing:
        progress(f"left out: {name}: {'; '.join(missing)}")
        return 0
    options = Options(arguments.rounds, arguments.quick, arguments.long, arguments.folder)
    try:
        for row in rows(options):
            found.append(row)
            progress(f"{row.what}, {row.where}: {row.measured}")
    except Exception:  # noqa: BLE001  # reported, and the other groups run
        traceback.print_exc()
        progress(f"failed: {name}")
        return 1
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--only", type=_names, default=list(GROUPS), help=f"some of {','.join(GROUPS)}", metavar="NAMES"
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each contender of a race (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--long", action="store_true", help="also rows that take minutes: a blob of 8 GiB")
    parser.add_argument(
        "--folder",
        type=Path,
        help="where registries keep blobs (/dev/shm where there is room)",
        metavar="DIR",
    )
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - GROUPS.keys():
        raise argparse.ArgumentTypeError(f"no group {', '.join(sorted(unknown))}")
    return names


if __name__ == "__main__":
    sys.exit(main())
