"""The command line by itself: help, version, and options that are wrong before anything is opened."""

import importlib.metadata
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer

from mesh.node import cli

MESH = "regions:\n  - {name: a, jurisdiction: cn}\n"


@pytest.fixture(autouse=True)
def _logs_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command sets up the logs of its process, which here is that of all tests."""
    monkeypatch.setattr("mesh.logging.set_up", lambda **_: None)


@pytest.mark.parametrize("command", [[], ["nearby"], ["topics"]])
def test_a_command_without_its_subcommand_shows_its_help(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(command) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.startswith(f"Usage: {' '.join(['regmesh', *command])} ")) == ("", True)
    assert "--help`" not in told.err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"regmesh {importlib.metadata.version('regmesh')}\n"


@pytest.mark.parametrize(
    ("option", "what"),
    [
        (["--listen", "nowhere"], "HOST:PORT"),
        (["--gateway", "a=nowhere"], "HOST:PORT"),
        (["--gateway", "nowhere"], "REGION=HOST:PORT"),
        (["--allow-network", "nowhere"], "not a network"),
        (["--token-realm", "nowhere"], "realm"),
        (["--log", "redis://x"], "is no log"),
    ],
)
def test_a_wrong_option_is_wrong_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str], what: str
) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(MESH)
    assert cli.run(["up", "-f", str(file), "--data", str(tmp_path / "data"), *option]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("regmesh: ")
    assert what in told


@pytest.mark.parametrize(
    "daemon", [["producer"], ["agent", "--region", "a"], ["control"], ["gateway", "--region", "a"]]
)
def test_a_daemon_says_in_its_help_and_without_it_that_it_needs_a_log(
    daemon: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*daemon, "--data", "/nowhere/at/all"]) == 2
    assert "--log kafka://" in capsys.readouterr().err
    assert cli.run([daemon[0], "--help"]) == 0
    assert "sqlite" not in capsys.readouterr().out.partition("--data")[0]


def test_each_module_registers_what_it_is_known_for() -> None:
    for module, names in cli.COMMANDS.items():
        app = typer.Typer()
        import_module(f"mesh.node.{module}").register(app)
        groups = [group.name for group in app.registered_groups]
        commands = [it.callback.__name__ for it in app.registered_commands if it.callback is not None]
        assert (*commands, *groups) == names


def test_a_question_to_the_api_imports_nothing_of_the_daemons() -> None:
    code = "import sys; from mesh.node import cli; cli.run(['logs', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "The sync log" in done.stdout
    loaded = done.stdout.split()
    assert "mesh.node.commands_sync_log" in loaded
    assert not {"sqlalchemy", "aiokafka", "consumer.agent", "mesh.control.api"} & set(loaded)


def test_a_command_that_prints_no_table_starts_without_what_others_need() -> None:
    code = "import sys; from mesh.node import cli; cli.run(['sync', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "mesh.node.commands_executions" in loaded
    assert not {
        "structlog",
        "yaml",
        "rich.table",
        "prometheus_client",
        "aiohttp.web",
        "mesh.rules.state",
    } & set(loaded)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["lgos"], "regmesh: No such command 'lgos'. Did you mean 'logs'? (see `regmesh --help`)"),
        (["logs", "--bad"], "regmesh: No such option: --bad"),
    ],
)
def test_wrong_use_is_told_and_ends_with_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(says)
