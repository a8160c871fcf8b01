"""Fills a replica of 1,000 repositories with 10 tags each through three kills: `python -m tests.soak` (minutes)."""

import argparse
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tests.soak import fill


def main() -> int:
    """Runs the fill; returns 1 when the sides differ."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--repositories", type=int, default=1000)
    parser.add_argument("--tags", type=int, default=10)
    parser.add_argument("--kills", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="regmesh-soak-") as folder:
        found = fill.run(
            Path(folder), repositories=options.repositories, tags=options.tags, kills=options.kills,
            report=lambda text: print(text, file=sys.stderr, flush=True),
        )  # fmt: skip
    print(
        f"{datetime.now(UTC):%Y-%m-%d}: {options.repositories} repositories with {options.tags} tags each, "
        f"{found.kills} x kill -9: filled in {found.fill_seconds:.0f} s, "
        f"{len(found.differences)} differences of {found.tags} tags"
    )
    for line in found.differences[:50]:
        print(line)
    return 1 if found.differences else 0


if __name__ == "__main__":
    sys.exit(main())
