"""Real parts, and a clean environment.

A test that needs a real part says `@pytest.mark.real("docker-registry")`. Where the part is missing the test is skipped
and the end of the run says so; with REGMESH_REQUIRE_REAL=1 (CI) it fails.
"""

import functools
import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # so that a test can say `from tests import ...`

_KEPT = {"REGMESH_REQUIRE_REAL", "REGMESH_TEST_KAFKA", "REGMESH_KAFKA_HOME"}
_missing = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_missing] = {}
    for name in [name for name in os.environ if name.startswith("REGMESH_") and name not in _KEPT]:
        del os.environ[name]


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


@functools.cache
def why_missing(part: str) -> str | None:
    """None when the part can be used."""
    if part == "kafka":
        return _why_no_kafka()
    if part == "postgresql":
        from tests import postgresql

        return postgresql.why_missing()
    if part == "distribution-3":
        from tests import parts

        return (
            None
            if parts.DISTRIBUTION_3.exists()
            else "`make parts` was not run: .cache/parts/bin/registry is missing"
        )
    return None if shutil.which(part) else f"no {part} on PATH"


def _why_no_kafka() -> str | None:
    try:
        from tests import kafka_broker
    except ImportError as error:
        return f"tests/kafka_broker.py cannot be used: {error}"
    return kafka_broker.available()
