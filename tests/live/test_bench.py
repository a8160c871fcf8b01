"""`make bench` prints its rows; what they say is for docs/benchmarks.md, not for a test."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.parts import Process, until

ROOT = Path(__file__).parent.parent.parent
BENCH = [sys.executable, "-m", "tests.bench", "--quick"]


def bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*BENCH, *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    ) as started:  # fmt: skip
        try:
            out, err = started.communicate(timeout=120)
        finally:
            started.terminate()  # not killed: it has registries to end
    return subprocess.CompletedProcess(command, started.returncode, out, err)


def rows(output: str) -> list[list[str]]:
    """The cells of a table's body."""
    lines = [line for line in output.splitlines() if line.startswith("| ")]
    assert lines[:2] == ["| what | where | measured | to reach |", "| --- | --- | --- | --- |"]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_intake_is_measured_without_any_real_part(tmp_path: Path) -> None:
    done = bench("--only", "intake", PATH=str(tmp_path), REGMESH_TEST_KAFKA="")
    assert done.returncode == 0, done.stderr
    assert [row[:2] for row in rows(done.stdout)] == [
        ["intake, as fast as it answers", "disk, embedded log"],
        ["intake, 2000 notifications/s due at fixed times", "disk, embedded log"],
    ]
    assert "left out: all rows on Kafka: no java" in done.stderr


def test_rules_are_measured_without_any_real_part(tmp_path: Path) -> None:
    done = bench("--only", "rules", PATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    reported = [row[0] for row in rows(done.stdout)]
    shown = [
        "events matched, each of another repository", "events matched, 1000 repositories again and again",
        "events read, no rules asked", "events read and matched",
    ]  # fmt: skip
    assert reported == shown * 9


def test_a_large_mesh_is_measured_beside_a_smaller_one(tmp_path: Path) -> None:
    done = bench("--only", "scale", PATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    assert len(found) % 2 == 0
    assert [row[0] for row in found[: len(found) // 2]] == [row[0] for row in found[len(found) // 2 :]]
    assert {"scale: control, start", "scale: agent, memory at most"} <= {row[0] for row in found}


def test_a_group_whose_parts_are_missing_is_left_out_and_said(tmp_path: Path) -> None:
    done = bench("--only", "copy", PATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert rows(done.stdout) == []
    assert "left out: copy: docker-registry: no docker-registry on PATH" in done.stderr


@pytest.mark.real("docker-registry", "skopeo", "curl")
def test_a_copy_is_raced() -> None:
    done = bench("--only", "copy")
    assert done.returncode == 0, done.stderr
    reported = [row[0] for row in rows(done.stdout)]
    assert "copy: time of regmesh over curl" in reported
    assert "copy: time of skopeo over regmesh" in reported


@pytest.mark.real("docker-registry", "skopeo", "curl")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing_behind(how: signal.Signals, tmp_path: Path) -> None:
    started = subprocess.Popen(
        [*BENCH, "--only", "latency", "--folder", str(tmp_path)], cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until("the mesh", lambda: list(tmp_path.glob("*/up.log")) or started.poll() is not None)
    started.send_signal(how)
    out, err = started.communicate(timeout=60)
    assert started.returncode == 130, err
    assert rows(out) == []
    assert list(tmp_path.iterdir()) == []
    assert not [command for command in _commands() if str(tmp_path) in command]


def test_a_process_that_starts_during_an_interrupt_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = subprocess.Popen

    def interrupted(*arguments: Any, **more: Any) -> subprocess.Popen[bytes]:
        process = begin(*arguments, **more)
        signal.raise_signal(signal.SIGINT)
        return process

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever an earlier test has left
    try:
        with pytest.raises(KeyboardInterrupt):
            Process([sys.executable, "-c", "import time; time.sleep(60)", str(tmp_path)], tmp_path / "log")
    finally:
        signal.signal(signal.SIGINT, before)
    started = Process.started[-1]
    assert started.is_running()
    assert started.log == tmp_path / "log"
    started.end()
    assert not [command for command in _commands() if str(tmp_path) in command]


def _commands() -> list[str]:
    """The command lines of all processes."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # ended meanwhile
    return found
