"""The command line as users type it: wrong input gets one line, an exit code, and starts nothing."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import parts
from tests.support.parts import Process, until

SOUND = """\
regions:
  - {name: beijing, jurisdiction: cn-mainland}
  - {name: frankfurt, jurisdiction: global}
instances:
  - {name: game-cn, account: game, region: beijing, url: "http://127.0.0.1:5001"}
  - {name: game-eu, account: game, region: frankfurt, url: "http://127.0.0.1:5002"}
rules:
  - {name: release, source: game-cn, destination: game-eu}
"""

BROKEN = """\
regions:
  - {name: beijing, jurisdiction: cn-mainland}
instances:
  - name: game-cn
    account: game
    region: bejing
    url: "http://127.0.0.1:5001"
    colour: blue
rules:
  - name: release
    source: game-cn
    destination: game-us
    filters:
      - {type: name, value: "game/{a"}
    conflict: lww
"""


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    file = tmp_path / "mesh.yaml"
    file.write_text(SOUND)
    return file


@pytest.fixture
def server(tmp_path: Path, sound: Path) -> Iterator[str]:
    url, daemon = _start(tmp_path, sound)
    yield url
    daemon.end()


def _start(folder: Path, file: Path) -> tuple[str, Process]:
    url = f"http://127.0.0.1:{parts.free_port()}"
    listen = url.removeprefix("http://")
    daemon = parts.regmesh(
        folder / "up.log", "up", "-f", str(file), "--data", str(folder / "data"), "--listen", listen
    )
    until("up is ready", lambda: parts.get(f"{url}/readyz"), needs=[daemon])
    until("the file is declared", lambda: parts.get(f"{url}/api/v1/regions")["items"], needs=[daemon])
    return url, daemon


def test_all_mistakes_of_a_file_are_reported_with_lines_and_nothing_starts(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(BROKEN)
    data = tmp_path / "data"
    done = parts.run_regmesh("up", "-f", str(file), "--data", str(data))
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    for line, path, what in [
        (6, "instances[0].region", "no region is named 'bejing'; did you mean 'beijing'?"),
        (8, "instances[0].colour", "unknown field 'colour'"),
        (12, "rules[0].destination", "no instance is named 'game-us'; did you mean 'game-cn'?"),
        (14, "rules[0].filters[0].value", "not closed"),
        (15, "rules[0].conflict", "planned but not built"),
    ]:
        assert any(f"{file}:{line}: {path}: " in said and what in said for said in lines), (path, lines)
    assert len(lines) == 5
    assert not data.exists()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("regions: [", "not YAML"),
        ("regions: []\nregions: []\n", "twice"),
        ("- a list", "must be a mapping"),
        ("regions: {}", "must be a list"),
    ],
)
def test_a_file_of_another_form_is_reported_with_its_line(tmp_path: Path, text: str, what: str) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(text)
    done = parts.run_regmesh("up", "-f", str(file), "--data", str(tmp_path / "data"))
    assert (done.returncode, what in done.stderr) == (2, True), done.stderr
    assert done.stderr.startswith(f"regmesh: {file}:")


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    done = parts.run_regmesh("up", "-f", str(tmp_path / "none.yaml"))
    assert (done.returncode, "cannot be read" in done.stderr) == (2, True)


def _fails_in_one_line(*arguments: str, code: int = 1) -> str:
    done = parts.run_regmesh(*arguments)
    assert done.returncode == code, done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("regmesh: ")
    return done.stderr


def test_wrong_log_urls(sound: Path, tmp_path: Path) -> None:
    up = ("up", "-f", str(sound), "--data", str(tmp_path / "data"), "--log")
    assert "is not a log: use sqlite:///PATH or kafka://" in _fails_in_one_line(*up, "redis://x", code=2)
    assert "names no file" in _fails_in_one_line(*up, "sqlite:///", code=2)
    port = parts.free_port()
    assert f"127.0.0.1:{port}" in _fails_in_one_line(
        "agent", "--region", "a", "--log", f"kafka://127.0.0.1:{port}"
    )
    assert "--log" in _fails_in_one_line("producer", code=2)


def test_a_port_that_is_taken(sound: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        line = _fails_in_one_line(
            "up", "-f", str(sound), "--data", str(tmp_path / "data"), "--listen", listen
        )
    assert f"cannot listen on {listen}" in line


def test_a_gateway_of_a_region_that_is_not_declared(sound: Path, tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    up = ("up", "-f", str(sound), "--data", data, "--listen", "127.0.0.1:0", "--log-format", "json")
    done = parts.run_regmesh(*up, "--gateway", "bejing=127.0.0.1:0")
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 2
    assert line == "regmesh: --gateway: no region is named 'bejing'; declared are: beijing, frankfurt"
    assert "regmesh is up" not in done.stdout


def test_a_gateway_port_that_is_taken(sound: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        at = f"127.0.0.1:{taken.getsockname()[1]}"
        up = ("up", "-f", str(sound), "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0")
        done = parts.run_regmesh(*up, "--gateway", f"beijing={at}")
    line = f"regmesh: cannot listen on {at}: address already in use; choose another with --gateway"
    assert (done.returncode, done.stdout, done.stderr.splitlines()[-1]) == (1, "", line)


def test_a_log_that_is_in_use(server: str, sound: Path, tmp_path: Path) -> None:
    listen = f"127.0.0.1:{parts.free_port()}"
    line = _fails_in_one_line("up", "-f", str(sound), "--data", str(tmp_path / "data"), "--listen", listen)
    assert "is open in another process" in line


def test_a_server_that_does_not_answer() -> None:
    server = f"http://127.0.0.1:{parts.free_port()}"
    assert "does not answer" in _fails_in_one_line("get", "rules", "--server", server)


@pytest.mark.parametrize(
    "arguments", [["upp"], ["agent"], ["get", "colours"], ["apply"], ["logs", "--limit", "0"], ["up", "-f"]]
)
def test_wrong_use_is_exit_2_and_one_line(arguments: list[str]) -> None:
    done = parts.run_regmesh(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "command", ["up", "producer", "agent", "control", "apply", "get", "delete", "logs", "demo"]
)
def test_every_command_has_help(command: str) -> None:
    done = parts.run_regmesh(command, "--help")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) > 4


def test_apply_get_delete(server: str, sound: Path) -> None:
    at = ("--server", server)
    more = sound.with_name("more.yaml")
    more.write_text("rules:\n  - {name: two, source: game-cn, destination: game-eu}\n")
    planned = parts.run_regmesh("apply", "-f", str(more), "--dry-run", *at)
    assert planned.stdout == "rule/two created (dry run)\n1 changed, 0 unchanged\n"
    assert "two" not in parts.run_regmesh("get", "rules", *at).stdout
    assert (
        parts.run_regmesh("apply", "-f", str(more), *at).stdout
        == "rule/two created\n1 changed, 0 unchanged\n"
    )
    assert parts.run_regmesh("apply", "-f", str(more), *at).stdout == "0 changed, 1 unchanged\n"
    shown = json.loads(parts.run_regmesh("get", "rule", "two", "-o", "json", *at).stdout)
    assert (shown["source"], shown["destination"], shown["enabled"]) == ("game-cn", "game-eu", True)
    used = parts.run_regmesh("delete", "instance", "game-eu", *at)
    assert (used.returncode, "rule/release" in used.stderr) == (1, True), used.stderr
    assert parts.run_regmesh("delete", "rule", "two", *at).stdout == "rule/two deleted\n"
    missing = parts.run_regmesh("get", "rule", "two", *at)
    assert (missing.returncode, "rule/two is not declared" in missing.stderr) == (1, True)


def test_apply_reports_problems_of_the_server_with_lines_of_the_file(server: str, sound: Path) -> None:
    bad = sound.with_name("bad.yaml")
    bad.write_text("rules:\n\n  - {name: back, source: game-eu, destination: game-cn}\n")
    done = parts.run_regmesh("apply", "-f", str(bad), "--server", server)
    assert done.returncode == 2
    assert done.stderr.startswith(f"regmesh: {bad}:3: rules[0].destination: makes a cycle of rules")


def test_explain_shows_a_verdict_for_each_rule(server: str, sound: Path) -> None:
    verdicts = json.loads(
        parts.run_regmesh("explain", "game-cn/game/app:v1", "-o", "json", "--server", server).stdout
    )
    assert [(it["rule"], it["verdict"], it["destination"]) for it in verdicts] == [
        ("release", "yes", "game-eu/game/app:v1")
    ]
    assert parts.run_regmesh("explain", "game-cn", "--server", server).returncode == 2
    unknown = parts.run_regmesh("explain", "nowhere/app:v1", "--server", server)
    assert (unknown.returncode, "no instance is named" in unknown.stderr) == (1, True)


def test_an_empty_log_is_an_empty_table_and_a_bad_time_is_wrong_use(server: str) -> None:
    assert parts.run_regmesh("logs", "--server", server).returncode == 0
    assert json.loads(parts.run_regmesh("logs", "-o", "json", "--server", server).stdout) == []
    bad = parts.run_regmesh("logs", "--since", "yesterday", "--server", server)
    assert (bad.returncode, "since" in bad.stderr) == (2, True)


def test_declarations_survive_a_restart(tmp_path: Path, sound: Path) -> None:
    url, daemon = _start(tmp_path, sound)
    extra = sound.with_name("extra.yaml")
    extra.write_text("rules:\n  - {name: extra, source: game-cn, destination: game-eu}\n")
    assert parts.run_regmesh("apply", "-f", str(extra), "--server", url).returncode == 0
    assert daemon.stop() == 0
    sound.write_text(extra.read_text())  # which refers to declarations that only the log has
    url, daemon = _start(tmp_path, sound)
    try:
        assert "extra" in parts.run_regmesh("get", "rules", "--server", url).stdout
        assert "rule/release is declared, but not by" in daemon.output()
    finally:
        daemon.end()
