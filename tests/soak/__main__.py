"""Runs regmesh for hours while its parts fail, and checks it from outside: `python -m tests.soak --help`."""

import argparse
import signal
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tests.soak import fill, run
from tests.soak.scenarios import SCENARIOS


def main() -> int:
    """Runs the scenarios; returns 1 when one of them found something."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every process is ended
    options = _options()
    rows, is_good = [], True
    for name in options.only or ["fill", *SCENARIOS]:
        folder = Path(options.keep or tempfile.mkdtemp(prefix="regmesh-soak-")) / name
        if name == "fill":
            is_good &= _fill(folder, short=options.short)
            continue
        result = run.run(
            name, folder, seed=options.seed, count=options.count, short=options.short, report=_report
        )
        for found in [*result.findings, *result.steps_back, *result.mended][:50]:
            _report(f"{name}: {found}")
        _report(f"{name}: files in {folder}")
        rows.append(result.row())
        is_good &= result.is_good
    if rows:
        print("\n".join([run.HEADER, *rows]))
    return 0 if is_good else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--only", action="append", choices=["fill", *SCENARIOS], metavar="NAME")
    parser.add_argument("--seed", type=int, default=1, help="of pushes and faults")
    parser.add_argument("--count", type=int, help="faults; of each kind in `registries`")
    parser.add_argument("--short", action="store_true", help="few and shorter faults")
    parser.add_argument("--keep", help="folder for data, logs and ledgers, instead of temporary ones")
    return parser.parse_args()


def _fill(folder: Path, *, short: bool) -> bool:
    repositories = 20 if short else 1000
    found = fill.run(folder, repositories=repositories, tags=10, kills=3, report=_report)
    print(
        f"{datetime.now(UTC):%Y-%m-%d}: {repositories} repositories with 10 tags each, "
        f"{found.kills} x kill -9: filled in {found.fill_seconds:.0f} s, "
        f"{len(found.differences)} differences of {found.tags} tags"
    )
    for line in found.differences[:50]:
        print(line)
    return not found.differences


def _report(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
