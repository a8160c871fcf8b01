"""Apache Kafka for tests: a broker that `compose/kafka/kafka.sh` runs."""

import functools
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.parts import Process, free_port

_SCRIPT = Path(__file__).parent.parent.parent / "compose" / "kafka" / "kafka.sh"
_READY = "Kafka Server started"


def running() -> str | None:
    """Returns the `host:port` of a cluster that runs already, from REGMESH_TEST_KAFKA."""
    return os.environ.get("REGMESH_TEST_KAFKA") or None


@functools.cache
def why_missing() -> str | None:
    """Returns why Kafka cannot be used; None when it can. Fetches Kafka's jars (40 MB) unless they are there."""
    if running():
        return None
    for program in ("java", "python3"):
        if shutil.which(program) is None:
            return f"no {program}"
    fetched = subprocess.run([_SCRIPT, "fetch"], capture_output=True, text=True, check=False, timeout=600)
    return None if fetched.returncode == 0 else f"Kafka was not fetched: {fetched.stderr.strip()[-300:]}"


@dataclass
class Broker:
    """A broker of the test's own, on the same port after every restart."""

    directory: Path
    port: int
    _process: Process | None = field(default=None, repr=False)

    @property
    def bootstrap(self) -> str:
        """Its `host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Its URL as a log."""
        return f"kafka://{self.bootstrap}"

    def start(self, *, within: float = 60) -> None:
        """Starts it and waits until it serves.

        Raises:
            RuntimeError: when it does not serve in time, with the end of its log.
        """
        log = self.directory / "broker.log"
        before = log.stat().st_size if log.exists() else 0
        command = [str(_SCRIPT), "run", str(self.port), str(self.directory)]
        self._process = Process(command, self.directory / "output.log")
        deadline = time.monotonic() + within
        while not _says_ready(log, before):
            if not self._process.is_running() or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"Kafka did not start:\n{_tail(self.directory)}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stops it cleanly, as an operator would."""
        if self._process is not None:
            try:
                self._process.stop(within=30)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """Kills it, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def suspend(self) -> None:
        """Makes it hang: it stays connected and answers nothing until `resume`."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Continues after `suspend`."""
        self._send(signal.SIGCONT)

    def restart(self) -> None:
        """Stops it unless it is stopped, and starts it with the same data on the same port."""
        self.stop()
        self.start()

    def _send(self, what: signal.Signals) -> None:
        assert self._process is not None, "not running"
        os.kill(self._process.pid, what)


def start(directory: Path) -> Broker:
    """Starts a new broker with its data and logs in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    broker = Broker(directory, free_port())
    broker.start()
    return broker


def _says_ready(log: Path, start: int) -> bool:
    if not log.exists():
        return False
    with log.open("rb") as lines:
        lines.seek(start)
        return _READY.encode() in lines.read()


def _tail(directory: Path) -> str:
    logs = (directory / name for name in ("output.log", "broker.log"))
    return "\n".join(log.read_text(errors="replace")[-2000:] for log in logs if log.exists())
