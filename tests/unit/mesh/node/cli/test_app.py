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
    told = capsys.readouterr()
    assert (told.out, told.err.startswith(f"Usage: {' '.join(['regmesh', *command])} ")) == ("", True)
    assert "--help`" not in told.err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
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
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("regmesh: ")
    assert what in told


def test_a_database_that_can_be_none_is_told_before_the_log_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody answers where that log should be: waiting for it would take long."""
    command = ["control", "--log", "kafka://127.0.0.1:1", "--data", str(tmp_path / "data")]
    assert app.run([*command, "--database", f"sqlite:///{tmp_path}"]) == 2
    told = f"regmesh: the sync log's database {str(tmp_path)!r} is a folder: name a file in it\n"
    assert capsys.readouterr().err == told
    assert not (tmp_path / "data").exists()


async def test_the_database_of_the_data_directory_is_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "control.db").write_text("This is a note, which nobody shall lose. " * 100)
    async with open_node(None, tmp_path, metrics=Metrics(CollectorRegistry())) as node:
        with pytest.raises(InvalidInput, match="is not an SQLite file"):
            roles.control(node, None)
    assert (tmp_path / "control.db").read_text().startswith("This is a note")


@pytest.mark.parametrize(
    "daemon", [["producer"], ["agent", "--region", "a"], ["control"], ["gateway", "--region", "a"]]
)
def test_a_daemon_says_in_its_help_and_without_it_that_it_needs_a_log(
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


def test_a_question_to_the_api_imports_nothing_of_the_daemons() -> None:
    code = "import sys; from mesh.node.cli import app; app.run(['logs', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Show the sync log" in done.stdout
    loaded = done.stdout.split()
    assert "mesh.node.cli.logs" in loaded
    assert not {"sqlalchemy", "aiokafka", "consumer.agent", "mesh.control.api"} & set(loaded)


def test_a_command_that_prints_no_table_starts_without_what_others_need() -> None:
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
def test_wrong_use_is_told_and_ends_with_2(
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
def test_an_output_that_is_full_is_told_in_a_line(command: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*REGMESH, command], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (
        1,
        "regmesh: the output cannot be written: No space left on device\n",
    )


def test_a_reader_that_goes_away_ends_the_demo_without_a_word() -> None:
    with subprocess.Popen(
        [*REGMESH, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        demo.stdout.close()
        assert (demo.stderr.read(), demo.wait(60)) == ("", 1)


def test_a_demo_that_is_interrupted_has_not_shown_it() -> None:
    with subprocess.Popen(
        [*REGMESH, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        assert demo.stdout.readline()
        demo.send_signal(signal.SIGINT)
        assert (demo.stderr.read(), demo.wait(60)) == ("", 130)


def test_an_interrupt_while_it_is_imported_is_no_traceback() -> None:
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
def test_a_wrong_option_of_a_daemon_is_told_before_a_log_is_asked(
    arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run([*arguments, "--region", "a", "--log", "kafka://127.0.0.1:1"]) == 2
    assert f"regmesh: Invalid value: {what}" in capsys.readouterr().err
