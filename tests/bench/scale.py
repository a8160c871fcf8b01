"""What a large mesh costs beside one of a tenth of the size: start, memory, idle processor, the loop, answers.

Both roles run on the embedded log, each in a process of its own. No registry answers and nothing is pushed: what is
measured is what there is to carry.
"""

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.scale_data import Size, write
from tests.bench.table import Options, Row, progress
from tests.bench.workplace import on_disk
from tests.support import parts
from tests.support.parts import Process, free_port, until

NEEDS: tuple[str, ...] = ()
FULL = Size(regions=1000, rules=10_000, tags=1_000_000, parked=100_000, entries=1_000_000)
_IDLE_SECONDS = 20.0
_REQUESTS = 20
_TURN, _ANSWER = "less than 50 ms", "less than 100 ms"
_LISTS = {
    "rules": "rules?limit=100",
    "one rule": "rules/rule-1",
    "instances": "instances?limit=100",
    "executions": "executions?limit=100",
    "the newest entries of the sync log": "logs?limit=100",
    "the newest entries of a rule": "logs?limit=100&rule=rule-1",
    "entries of a repository": "logs?limit=100&repository=team-1/app-1",
    "where the tags of a repository are": "images/i1/team-1/app-1?limit=100",
    "parked tasks": "parked?limit=100",
    "doctor": "doctor",
}


def rows(options: Options) -> Iterator[Row]:
    """Yields the rows of the group `scale`."""
    full = FULL.part(500) if options.quick else FULL
    for size in (full.part(10), full):
        with on_disk() as folder:
            progress(f"writing {size}")
            declared = asyncio.run(write(folder, size))
            yield Row("scale: apply all of it", f"{size}, embedded log", f"{declared:.1f} s")
            idle = 2.0 if options.quick else _IDLE_SECONDS
            yield from _measured("control", size, folder, idle)
            yield from _measured("agent", size, folder, idle)


def _measured(role: str, size: Size, data: Path, idle: float) -> Iterator[Row]:
    where = f"{size}, embedded log"
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        sys.executable,
        "-m",
        "tests.bench.scale_process",
        role,
        size.home,
        str(data),
        url.rpartition(":")[2],
    ]
    started = time.monotonic()
    process = Process(command, data / f"{role}.log", None)
    try:
        until(f"{role} is ready", lambda: parts.get(f"{url}/readyz"), within=600, needs=[process])
        yield Row(f"scale: {role}, start", where, f"{time.monotonic() - started:.1f} s")
        _until_quiet(process)
        _slowest_turn(url)
        before = _processor(process)
        time.sleep(idle)
        share = (_processor(process) - before) / idle * 100
        yield Row(f"scale: {role}, idle processor", where, f"{share:.1f} % of a core")
        yield Row(f"scale: {role}, slowest turn while idle", where, f"{_slowest_turn(url):.0f} ms", _TURN)
        yield Row(f"scale: {role}, memory at most", where, f"{process.peak_memory() / 2**20:.0f} MiB")
        if role == "control":
            yield from _answers(url, where)
    finally:
        process.end()


def _answers(url: str, where: str) -> Iterator[Row]:
    for name, path in _LISTS.items():
        times = []
        for _ in range(_REQUESTS):
            started = time.monotonic()
            assert parts.get(f"{url}/api/v1/{path}") is not None, path
            times.append((time.monotonic() - started) * 1000)
        turn = _slowest_turn(url)
        measured = f"{max(times):.0f} ms, the loop's slowest turn meanwhile {turn:.0f} ms"
        yield Row(f"scale: slowest of {_REQUESTS} answers, {name}", where, measured, _ANSWER)


def _until_quiet(process: Process) -> None:
    """Until what a start has to do is done: topics are read, and places were asked once."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        before = _processor(process)
        time.sleep(3)
        if _processor(process) - before < 1.5:
            return


def _slowest_turn(url: str) -> float:
    return float(parts.get(f"{url}/bench/slowest")["milliseconds"])


def _processor(process: Process) -> float:
    """Returns the processor time of a process so far, in seconds."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
