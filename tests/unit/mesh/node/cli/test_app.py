"""The command line by itself: help, version, and options that are wrong before anything is opened."""

import importlib.metadata
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer
from prometheus_client import CollectorRegistry

from mesh.errors import InvalidInput
from mesh.metrics import Metrics
from mesh.node import roles
from mesh.node.cli import app
from mesh.node.cli.output import rewrite_line
from mesh.node.node import open_node

REGMESH = [sys.executable, "-m", "mesh.node"]
MESH = "regions:\n  - {name: a, jurisdiction: cn}\n"


@pytest.fixture(autouse=True)
def _logs_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command sets up the logs of its process, which here is that of all tests."""
    monkeypatch.setattr("mesh.logging.set_up", lambda **_: None)


@pytest.mark.parametrize("command", [[], ["nearby"], ["topics"]])
def test_a_command_without_its_subcommand_shows_its_help(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(command) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.startswith(f"Usage: {' '.join(['regmesh', *command])} ")) == ("", True)
    assert "--help`" not in shown.err


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["--version"]) == 0
    assert capsys.readouterr().out == f"regmesh {importlib.metadata.version('regmesh')}\n"


@pytest.mark.parametrize(
    ("option", "what"),
    [
        (["--listen", "nowhere"], "HOST:PORT"),
        (["--gateway", "a=nowhere"], "HOST:PORT"),
        (["--gateway", "nowhere"], "REGION=HOST:PORT"),
        (["--allow-network", "nowhere"], "not a network"),
        (["--token-realm", "nowhere"], "realm"),
        (["--log", "redis://x"], "is not a log"),
        (["--database", "redis://x"], "must be sqlite:///FILE or postgresql://"),
        (
            ["--database", "sqlite:////nowhere/at/all/control.db"],
            "in a folder that does not exist: create it",
        ),
    ],
)
def test_a_wrong_option_is_wrong_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str], what: str
) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(MESH)
    assert app.run(["up", "-f", str(file), "--data", str(tmp_path / "data"), *option]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("regmesh: ")
    assert what in line


def test_an_invalid_database_is_reported_before_the_log_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No broker answers at that URL, so connecting would take long."""
    command = ["control", "--log", "kafka://127.0.0.1:1", "--data", str(tmp_path / "data")]
    assert app.run([*command, "--database", f"sqlite:///{tmp_path}"]) == 2
    line = f"regmesh: the sync log's database {str(tmp_path)!r} is a folder: name a file in it\n"
    assert capsys.readouterr().err == line
    assert not (tmp_path / "data").exists()


async def test_the_database_of_the_data_directory_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "control.db").write_text("This is a note, which must not be lost. " * 100)
    async with open_node(None, tmp_path, metrics=Metrics(CollectorRegistry())) as node:
        with pytest.raises(InvalidInput, match="is not an SQLite file"):
            roles.control(node, None)
    assert (tmp_path / "control.db").read_text().startswith("This is a note")


@pytest.mark.parametrize(
    "daemon", [["producer"], ["agent", "--region", "a"], ["control"], ["gateway", "--region", "a"]]
)
def test_a_daemon_without_a_log_is_wrong_use_and_its_help_says_so(
    daemon: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run([*daemon, "--data", "/nowhere/at/all"]) == 2
    assert "--log kafka://" in capsys.readouterr().err
    assert app.run([daemon[0], "--help"]) == 0
    assert "sqlite" not in capsys.readouterr().out.partition("--data")[0]


def test_each_module_defines_its_commands() -> None:
    for module, names in app.COMMANDS.items():
        defined = import_module(f"mesh.node.cli.{module}")
        for name in names:
            found = getattr(defined, name)
            assert isinstance(found, typer.Typer) or (found.__name__, found.__module__) == (
                name,
                defined.__name__,
            )


def test_a_client_command_imports_nothing_of_the_daemons() -> None:
    code = "import sys; from mesh.node.cli import app; app.run(['logs', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Show the sync log" in done.stdout
    loaded = done.stdout.split()
    assert "mesh.node.cli.logs" in loaded
    assert not {"sqlalchemy", "aiokafka", "consumer.agent", "mesh.control.api"} & set(loaded)


def test_a_command_without_tables_imports_little() -> None:
    code = "import sys; from mesh.node.cli import app; app.run(['sync', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "mesh.node.cli.executions" in loaded
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
def test_wrong_use_is_reported_and_ends_with_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(says)


def test_the_help_cuts_no_summary(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command in ([], ["nearby"], ["topics"]):
        assert app.run([*command, "--help"]) == 0
        _, _, listed = capsys.readouterr().out.partition("Commands:\n")
        assert listed
        assert [line for line in listed.splitlines() if line.endswith("...")] == []


@pytest.mark.parametrize("command", ["--help", "demo"])
def test_a_full_output_is_reported_in_one_line(command: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*REGMESH, command], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (
        1,
        "regmesh: the output cannot be written: No space left on device\n",
    )


def test_a_closed_pipe_ends_the_demo_silently() -> None:
    with subprocess.Popen(
        [*REGMESH, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        demo.stdout.close()
        assert (demo.stderr.read(), demo.wait(60)) == ("", 1)


def test_an_interrupted_demo_exits_with_130() -> None:
    with subprocess.Popen(
        [*REGMESH, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        assert demo.stdout.readline()
        demo.send_signal(signal.SIGINT)
        assert (demo.stderr.read(), demo.wait(60)) == ("", 130)


def test_an_interrupt_during_imports_shows_no_traceback() -> None:
    code = (
        "import sys; from mesh.node.__main__ import main; sys.argv[1:] = ['--version']\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted()); main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_progress_stays_in_one_row_of_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    rewrite_line("0 of 2 places have it; waiting for game-cn@shanghai")
    rewrite_line("2 of 2")
    assert capsys.readouterr().err == "\r\x1b[K0 of 2 places ha...\r\x1b[K2 of 2"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["agent", "--relay-url", "nowhere"], "--relay-url 'nowhere' is not a URL: use http://HOST:PORT"),
        (["gateway", "--domain", "http://x"], "--domain 'http://x': must be a host name"),
        (["gateway", "--domain", "localhost:8083"], "--domain 'localhost:8083': must be a host name"),
    ],
)
def test_a_wrong_option_of_a_daemon_is_reported_before_the_log_is_opened(
    arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run([*arguments, "--region", "a", "--log", "kafka://127.0.0.1:1"]) == 2
    assert f"regmesh: Invalid value: {what}" in capsys.readouterr().err
