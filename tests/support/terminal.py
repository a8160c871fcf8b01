"""Runs commands in the test's process, against the control server at one URL."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
from structlog.testing import capture_logs

from mesh.node.cli import app


class Done(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


Terminal = Callable[..., Awaitable[Done]]


@contextmanager
def terminal_at(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Terminal]:
    """Yields a function that runs the command with its arguments."""
    monkeypatch.setenv("REGMESH_SERVER", url)

    async def typed(*arguments: str) -> Done:
        code = await asyncio.to_thread(app.run, list(arguments))
        return Done(code, *capsys.readouterr())

    with capture_logs():  # of what serves it, which shares this process and its stdout
        yield typed
