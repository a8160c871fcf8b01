"""`regmesh`: one program for the daemons and for the commands of operators and users.

Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted. Errors go to stderr, one line each, with what to do.
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
from mesh.node.cli.control_client import ApiError

# Typer carries its own copy of click, whose names are private; this is that copy's UsageError.
_UsageError: Any = typer.BadParameter.__base__

_OUTPUT_FULL = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
)  # of the file that stdout is redirected to

# Commands by the module of this package that defines them, in the order of the help. Only the module of the requested
# command is imported: a client of the API starts without what the daemons import.
COMMANDS = {
    "up": ("up",),
    "daemons": ("demo", "producer", "agent", "control"),
    "gateway": ("gateway",),
    "topics": ("topics",),
    "declare": ("apply", "delete"),
    "get": ("get",),
    "executions": ("sync", "stop", "retry"),
    "diff": ("diff",),
    "logs": ("logs",),
    "images": ("explain", "where"),
    "wait": ("wait",),
    "usage": ("usage",),
    "doctor": ("doctor",),
    "nearby": ("nearby",),
    "relay_keys": ("relay_keys",),
}


def make_app(command: str | None = None) -> typer.Typer:
    """Returns the program with one command, or with all of them when none has that name."""
    app = typer.Typer(
        name="regmesh",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(regmesh)  # without one, Typer takes a lone command for the whole program
    function = command.replace("-", "_") if command is not None else None
    wanted = {module: names for module, names in COMMANDS.items() if function in names}
    for module, names in (wanted or COMMANDS).items():
        defined = import_module(f"mesh.node.cli.{module}")
        for name in names:
            found = getattr(defined, name)
            if isinstance(found, typer.Typer):
                app.add_typer(found, name=name)
            else:
                app.command()(found)
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
    """Runs one command and returns its exit code."""
    try:
        code = _run(arguments)
        if sys.stdout is not None:  # as `>&-` leaves it
            sys.stdout.flush()  # so that a failed write is reported here, not by the interpreter as it exits
    except BrokenPipeError:
        sys.stderr.close()  # the reader of the output has closed it, as `| head` does
        return 1
    except OSError as error:
        if error.errno not in _OUTPUT_FULL:
            raise
        print(f"regmesh: the output cannot be written: {error.strerror}", file=sys.stderr)
        _discard_stdout()
        return 1
    return code


def _run(arguments: list[str]) -> int:
    try:
        app = make_app(arguments[0] if arguments else None)
        return int(app(args=arguments, prog_name="regmesh", standalone_mode=False) or 0)
    except typer.Exit as error:
        return error.exit_code
    except (RegmeshError, _UsageError) as error:
        if (text := _help_of_group(error)) is not None:
            print(text, file=sys.stderr)
            return 2
        for line in _lines(error, arguments):
            print(f"regmesh: {line}", file=sys.stderr)
        return 2 if _is_wrong_use(error) else 1
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED


def _help_of_group(error: Exception) -> str | None:
    """Returns the help of a group that was called without its subcommand: the error's message is that help."""
    if not isinstance(error, _UsageError) or error.ctx is None:
        return None
    text = str(error.ctx.get_help())
    return text if error.message == text else None


def _discard_stdout() -> None:
    """Drops what is left in the buffer: the interpreter would try to write it again as it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _lines(error: Exception, arguments: list[str]) -> list[str]:
    if isinstance(error, _UsageError):
        command = error.ctx.command_path if error.ctx is not None else _command(arguments)
        return [f"{error.format_message()} (see `{command} --help`)"]
    return error.lines if isinstance(error, RegmeshError) else [str(error)]


def _command(arguments: list[str]) -> str:
    """Returns the command, for an error that has no context of its own."""
    known = {name for names in COMMANDS.values() for name in names}
    return " ".join(["regmesh", *(name for name in arguments[:1] if name in known)])


def _is_wrong_use(error: Exception) -> bool:
    return isinstance(error, (InvalidInput, _UsageError)) or (isinstance(error, ApiError) and error.wrong_use)
