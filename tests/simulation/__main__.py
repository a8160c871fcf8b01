"""Runs the simulation with many seeds: `python -m tests.simulation`; prints the steps of each seed that failed."""

import argparse
import asyncio
import sys
from datetime import UTC, datetime

import structlog

from tests.simulation.run import simulate


def main() -> int:
    """Runs the seeds; returns 1 when one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--steps", type=int, default=60, help="steps of each seed")
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    failed = 0
    for seed in range(options.first, options.first + options.seeds):
        taken: list[str] = []
        if broken := asyncio.run(simulate(seed, options.steps, taken.append)):
            failed += 1
            print(f"seed {seed}:", *broken, "after:", *taken, sep="\n  ", flush=True)
        else:
            print(f"seed {seed}: passed", file=sys.stderr, flush=True)
    print(f"{datetime.now(UTC):%Y-%m-%d}: {options.seeds} seeds of {options.steps} steps, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
