"""The program: every command is known by its module, and no other one is imported for it."""

import subprocess
import sys
from importlib import import_module

import pytest
import typer

from mesh.node import cli


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


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Usage: regmesh [OPTIONS] COMMAND"),
        (["nearby"], "Usage: regmesh nearby [OPTIONS] COMMAND"),
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
