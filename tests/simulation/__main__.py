"""`python -m tests.simulation`: many seeds, one after the other; says which did not hold, and what had happened."""

import argparse
import asyncio
import sys
from datetime import UTC, datetime

import structlog

from tests.simulation.run import simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--steps", type=int, default=60, help="things that happen in each")
    asked = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    bad = 0
    for seed in range(asked.first, asked.first + asked.seeds):
        happened: list[str] = []
        if broken := asyncio.run(simulate(seed, asked.steps, happened.append)):
            bad += 1
            print(f"seed {seed}:", *broken, "after:", *happened, sep="\n  ", flush=True)
        else:
            print(f"seed {seed}: held", file=sys.stderr, flush=True)
    print(f"{datetime.now(UTC):%Y-%m-%d}: {asked.seeds} seeds of {asked.steps} steps, {bad} did not hold")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
