"""Real parts, and a clean environment.

A test that needs a real part says `@pytest.mark.real("docker-registry")`. Where the part is missing the test is skipped
and the end of the run says so; with REGMESH_REQUIRE_REAL=1 (CI) it fails. One that shows more of the same says
`@pytest.mark.more("what it adds")`: it runs with `--all`, and without it the end of the run says what was left out.
"""

import functools
import os
import shutil
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

from tests.support.parts import Process

_SAID = 2_000  # characters
_KEPT = {"REGMESH_REQUIRE_REAL", "REGMESH_TEST_KAFKA", "REGMESH_KAFKA_HOME"}
_missing = pytest.StashKey[dict[str, str]]()
_sessions = WeakKeyDictionary[aiohttp.ClientSession, str]()
_left_out = pytest.StashKey[Counter[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the tests too that are marked `more`")


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.register_profile(
        "regmesh", deadline=None
    )  # how busy a machine is says nothing of the code
    hypothesis.settings.load_profile("regmesh")
    _follow_sessions()
    config.stash[_missing] = {}
    config.stash[_left_out] = Counter()
    for name in [name for name in os.environ if name.startswith("REGMESH_") and name not in _KEPT]:
        del os.environ[name]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """A session that a test left open is told by that test, with who opened it, not by whichever comes later."""
    yield
    left = [where for it, where in _sessions.items() if not it.closed]
    _sessions.clear()
    if left:
        pytest.fail(
            f"{item.nodeid} left {len(left)} client sessions open, the first from:\n{left[0]}", pytrace=False
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A failure shows how each of the test's processes fares, and the end of what it said."""
    report = yield
    if report.failed:
        report.sections += [(it.state(), it.said()[-_SAID:]) for it in Process.begun]
    if call.when == "teardown":
        Process.begun[:] = [it for it in Process.begun if it.is_running()]  # of a wider fixture
    return report


def _follow_sessions() -> None:
    begin = aiohttp.ClientSession.__init__

    @functools.wraps(begin)
    def begin_followed(session: aiohttp.ClientSession, *args: Any, **options: Any) -> None:
        begin(session, *args, **options)
        _sessions[session] = "".join(traceback.format_stack(limit=12)[:-1])

    aiohttp.ClientSession.__init__ = begin_followed  # type: ignore[method-assign]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--all"):
        return
    more = {item: mark.args[0] for item in items if (mark := item.get_closest_marker("more")) is not None}
    config.stash[_left_out].update(more.values())
    config.hook.pytest_deselected(items=list(more))
    items[:] = [item for item in items if item not in more]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("real"):
        for part in mark.args:
            reason = why_missing(part)
            if reason is not None:
                _report(item, part, reason)


def _report(item: pytest.Item, part: str, reason: str) -> None:
    item.config.stash[_missing][part] = reason
    if os.environ.get("REGMESH_REQUIRE_REAL") == "1":
        pytest.fail(f"needs {part}: {reason}", pytrace=False)
    pytest.skip(f"needs {part}: {reason}")


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


@functools.cache
def why_missing(part: str) -> str | None:
    """None when the part can be used."""
    if part == "kafka":
        return _why_no_kafka()
    if part == "postgresql":
        from tests.support import postgresql

        return postgresql.why_missing()
    if part in ("distribution-3", "ggcr"):
        from tests.support import parts

        program = parts.DISTRIBUTION_3 if part == "distribution-3" else parts.GGCR
        return (
            None
            if program.exists()
            else f"`make parts` was not run: .cache/parts/bin/{program.name} is missing"
        )
    if part == "crane":
        from tests.support import parts

        return None if parts.CRANE.exists() else "`make parts` was not run: .cache/parts/bin/crane is missing"
    if part == "containerd" and os.geteuid() != 0:
        return "containerd wants to be root"
    return None if shutil.which(part) else f"no {part} on PATH"


def _why_no_kafka() -> str | None:
    try:
        from tests.support import kafka_broker
    except ImportError as error:
        return f"tests/support/kafka_broker.py cannot be used: {error}"
    return kafka_broker.available()
