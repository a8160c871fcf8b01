"""`python -m tests.soak`: a replica of 1,000 repositories with 10 tags each, killed three times; minutes."""

import argparse
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tests.soak import fill


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--repositories", type=int, default=1000)
    parser.add_argument("--tags", type=int, default=10)
    parser.add_argument("--kills", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="regmesh-soak-") as folder:
        found = fill.run(
            Path(folder), repositories=asked.repositories, tags=asked.tags, kills=asked.kills,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )  # fmt: skip
    print(
        f"{datetime.now(UTC):%Y-%m-%d}: {asked.repositories} repositories with {asked.tags} tags each, {found.kills} x "
        f"kill -9: filled in {found.fill_seconds:.0f} s, {len(found.differences)} differences of {found.tags} tags"
    )
    for line in found.differences[:50]:
        print(line)
    return 1 if found.differences else 0


if __name__ == "__main__":
    sys.exit(main())
