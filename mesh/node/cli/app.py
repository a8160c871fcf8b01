"""`regmesh`: one command for the daemons and for the people at a terminal.

Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted. Errors go to stderr, one line each, saying what to do.
"""

import errno
import importlib.metadata
import os
import sys
from importlib import import_module
from typing import Annotated, Any

import typer

from mesh.errors import InvalidInput, RegmeshError
from mesh.node import INTERRUPTED
from mesh.node.cli.remote import Refused

# Typer carries its own copy of click, whose names are private; this is that copy's UsageError.
_UsageError: Any = typer.BadParameter.__base__

_CANNOT_TAKE_MORE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # a file that stdout goes to

# Commands by the module of this package that registers them, in the order of the help. Only the module of the command
# that was asked for is imported: a question to the API shall not wait for all that the daemons are made of.
COMMANDS = {
    "daemons": ("up", "demo", "producer", "agent", "control"),
    "topics": ("topics",),
    "state": ("apply", "get", "delete"),
    "executions": ("sync", "stop", "retry"),
    "sync_log": ("logs",),
    "explain": ("explain",),
    "doctor": ("doctor",),
    "gateway": ("gateway",),
    "nearby": ("nearby",),
    "where": ("where",),
    "wait": ("wait",),
    "usage": ("usage",),
}


def make_app(command: str | None = None) -> typer.Typer:
    """With this command alone; with all where it is none of ours."""
    app = typer.Typer(
        name="regmesh",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(regmesh)  # without one, Typer takes a lone command for the whole program
    wanted = [module for module, names in COMMANDS.items() if command in names]
    for module in wanted or COMMANDS:
        import_module(f"mesh.node.cli.{module}").register(app)
    return app


def _show_version(wanted: bool) -> None:  # a typer callback
    if wanted:
        print(f"regmesh {importlib.metadata.version('regmesh')}")
        raise typer.Exit


def regmesh(
    version: Annotated[  # its callback does it
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """A replication mesh for container registries."""


def run(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    try:
        code = _run(arguments)
        if sys.stdout is not None:  # as `>&-` leaves it
            sys.stdout.flush()  # what cannot be written is told here, not by the interpreter as it goes
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away, as `| head` does
        return 1
    except OSError as error:
        if error.errno not in _CANNOT_TAKE_MORE:
            raise
        print(f"regmesh: the output cannot be written: {error.strerror}", file=sys.stderr)
        _give_up_stdout()
        return 1
    return code


def _run(arguments: list[str]) -> int:
    try:
        app = make_app(arguments[0] if arguments else None)
        return int(app(args=arguments, prog_name="regmesh", standalone_mode=False) or 0)
    except typer.Exit as error:
        return error.exit_code
    except (RegmeshError, _UsageError) as error:
        if (missing := _help_instead(error)) is not None:
            print(missing, file=sys.stderr)
            return 2
        for line in _lines(error, arguments):
            print(f"regmesh: {line}", file=sys.stderr)
        return 2 if _is_wrong_use(error) else 1
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED


def _help_instead(error: Exception) -> str | None:
    """The help of a command that was typed without its subcommand: that is what its error holds."""
    if not isinstance(error, _UsageError) or error.ctx is None:
        return None
    text = str(error.ctx.get_help())
    return text if error.message == text else None


def _give_up_stdout() -> None:
    """Nobody takes what is left in it; the interpreter would try once more, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _lines(error: Exception, arguments: list[str]) -> list[str]:
    if isinstance(error, _UsageError):
        where = error.ctx.command_path if error.ctx is not None else _command(arguments)
        return [f"{error.format_message()} (see `{where} --help`)"]
    return error.lines if isinstance(error, RegmeshError) else [str(error)]


def _command(arguments: list[str]) -> str:
    """Of an error that does not know it."""
    return " ".join(
        ["regmesh", *(it for it in arguments[:1] if any(it in names for names in COMMANDS.values()))]
    )


def _is_wrong_use(error: Exception) -> bool:
    return isinstance(error, (InvalidInput, _UsageError)) or (isinstance(error, Refused) and error.wrong_use)
