"""The real parts that tests may need, and why one cannot be used on this machine."""

import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.support import kafka_broker, parts, postgresql


@functools.cache
def why_missing(part: str) -> str | None:
    """Returns why `part` cannot be used; None when it can. `part` is a program on PATH unless it has a check here."""
    if part in _CHECKS:
        return _CHECKS[part]()
    return None if shutil.which(part) else f"no {part} on PATH"


def _why_no_containerd() -> str | None:
    if os.geteuid() != 0:
        return "containerd has to run as root"
    return None if shutil.which("containerd") else "no containerd on PATH"


def _built(program: Path) -> Callable[[], str | None]:
    return lambda: None if program.exists() else f"no .cache/parts/bin/{program.name}: run `make parts`"


def _why_no_network() -> str | None:
    return None if parts.own_address() else "this machine has no address but loopback"


_CHECKS: dict[str, Callable[[], str | None]] = {
    "kafka": kafka_broker.why_missing,
    "postgresql": postgresql.why_missing,
    "containerd": _why_no_containerd,
    "distribution-3": _built(parts.DISTRIBUTION_3),
    "ggcr": _built(parts.GGCR),
    "crane": _built(parts.CRANE),
    "network": _why_no_network,
}
