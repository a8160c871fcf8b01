"""Lets a test that needs the whole machine run while the other workers wait between two tests."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def machine(*, alone: bool) -> Iterator[None]:
    """Holds the machine for one test: shared with tests of other workers, or `alone`.

    The queue is held while a test waits for the machine, so that one that wants it alone is not overtaken for ever.
    """
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:
        yield  # one process runs all tests
        return
    with ExitStack() as stack:
        queue, lock = (
            stack.enter_context(Path(tempfile.gettempdir(), f"regmesh-{run}-{name}").open("w"))
            for name in ("queue", "machine")
        )
        fcntl.flock(queue, fcntl.LOCK_EX)
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(queue, fcntl.LOCK_UN)
        yield
