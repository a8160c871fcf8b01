"""Test set-up: real parts, a clean environment, and what each worker of pytest-xdist reports to the end of the run.

A test that needs a real part has the mark `@pytest.mark.real("docker-registry")`. When the part is missing, the test is
skipped and the end of the run names the part; with REGMESH_REQUIRE_REAL=1 (CI) the test fails instead. A test with the
mark `@pytest.mark.more("what it adds")` runs with `--all` only; the end of the run counts the tests that were left out.

Tests run side by side in several processes (`make test`): a test takes its ports from `free_port` and its files from
`tmp_path`. Tests that share an expensive part share a mark `xdist_group`, which sends all of them to one worker. One
that needs the whole machine has the mark `alone`.
"""

import functools
import gc
import itertools
import os
import sys
import traceback
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import aiohttp
import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # so that a test can say `from tests import ...`

from tests.support.exclusive import machine
from tests.support.parts import Process
from tests.support.real_parts import why_missing

_OUTPUT_SHOWN = 2_000  # characters, of each process of a failed test
_KEPT_VARIABLES = {"REGMESH_REQUIRE_REAL", "REGMESH_TEST_KAFKA", "REGMESH_KAFKA_HOME"}
_missing = pytest.StashKey[dict[str, str]]()  # reason by real part
_left_out = pytest.StashKey[Counter[str]]()  # tests by what they add
_sessions = WeakKeyDictionary[aiohttp.ClientSession, str]()  # by the stack that opened them


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also run the tests with the mark `more`")


def pytest_configure(config: pytest.Config) -> None:
    # No deadline: how busy the machine is says nothing about the code.
    hypothesis.settings.register_profile("regmesh", deadline=None)
    hypothesis.settings.load_profile("regmesh")
    _record_sessions()
    config.stash[_missing] = {}
    config.stash[_left_out] = Counter()
    for name in [name for name in os.environ if name.startswith("REGMESH_") and name not in _KEPT_VARIABLES]:
        del os.environ[name]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--all"):
        return
    more = {item: mark.args[0] for item in items if (mark := item.get_closest_marker("more")) is not None}
    config.stash[_left_out].update(more.values())
    config.hook.pytest_deselected(items=list(more))
    items[:] = [item for item in items if item not in more]


def pytest_collection_finish() -> None:
    """Keeps modules and collected tests out of every later `gc.collect()`, which takes 0.1 s with them."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    with machine(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for part in (part for mark in item.iter_markers("real") for part in mark.args):
        if (reason := why_missing(part)) is None:
            continue
        item.config.stash[_missing][part] = reason
        if os.environ.get("REGMESH_REQUIRE_REAL") == "1":
            pytest.fail(f"needs {part}: {reason}", pytrace=False)
        pytest.skip(f"needs {part}: {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Fails the test that left a client session open, with the stack that opened it, and not a later one."""
    yield
    left = [stack for session, stack in _sessions.items() if not session.closed]
    _sessions.clear()
    if left:
        message = f"{item.nodeid} left {len(left)} client sessions open, the first from:\n{left[0]}"
        pytest.fail(message, pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Adds the state and the last output of each process of a test that failed."""
    report = yield
    if report.failed:
        report.sections += [(it.state(), it.output()[-_OUTPUT_SHOWN:]) for it in Process.started]
    if call.when == "teardown":
        Process.started[:] = [it for it in Process.started if it.is_running()]  # of a wider fixture
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Sends from a worker of pytest-xdist what the end of the run shows."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["missing"] = session.config.stash[_missing]
        output["left_out"] = dict(session.config.stash[_left_out])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collects what a worker sent; a worker that crashed sent nothing. Every worker collects all tests."""
    output = getattr(node, "workeroutput", {})
    node.config.stash[_missing].update(output.get("missing", {}))
    node.config.stash[_left_out] |= Counter(output.get("left_out", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    missing = terminalreporter.config.stash[_missing]
    if missing:
        terminalreporter.section("real parts that are missing")
        for part, reason in sorted(missing.items()):
            terminalreporter.line(f"{part}: {reason}")
    left_out = terminalreporter.config.stash[_left_out]
    if left_out:
        terminalreporter.section("left out; `make test-all` (--all) runs them")
        for reason, count in sorted(left_out.items()):
            terminalreporter.line(f"{count} of {reason}")


def _record_sessions() -> None:
    """Makes aiohttp's sessions record where they are opened."""
    initialise = aiohttp.ClientSession.__init__

    @functools.wraps(initialise)
    def initialise_recorded(session: aiohttp.ClientSession, *args: Any, **options: Any) -> None:
        initialise(session, *args, **options)
        calls = itertools.islice(traceback.walk_stack(sys._getframe(1)), 12)
        _sessions[session] = "\n".join(
            f"{it.f_code.co_filename}:{line} {it.f_code.co_name}" for it, line in calls
        )

    aiohttp.ClientSession.__init__ = initialise_recorded  # type: ignore[method-assign]
