"""Real parts as processes on loopback: registries, regmesh daemons and skopeo; and a webhook receiver."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import standardwebhooks
import yaml

T = TypeVar("T")


# Below the ports that the kernel gives to outgoing connections (32768 and up on Linux): one of those might belong to a
# client before its daemon listens. Each worker of pytest-xdist takes every n-th port; each port is given out once.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_PORTS = range(15_000 + _WORKER, 32_000, _WORKERS)
_ports = iter(random.Random(os.getpid()).sample(_PORTS, len(_PORTS)))


def free_port() -> int:
    """Returns a port on loopback that nobody listens on and that no other test of this run is given."""
    for port in _ports:
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


def own_address() -> str | None:
    """Returns an IPv4 address of this machine that is not loopback; None when it has no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # chooses the local address; nothing is sent
        except OSError:
            return None
        return str(probe.getsockname()[0])


def get(url: str, **query: str) -> Any:
    """Returns the JSON at `url`; None without an answer, and after one that is not a success."""
    try:
        with urlopen(f"{url}?{urlencode(query)}" if query else url, timeout=10) as answer:
            return json.loads(answer.read() or b"null") or {}
    except (HTTPError, URLError, ConnectionError, TimeoutError, ValueError):
        return None


def put(url: str, body: object) -> int:
    """Puts `body` as JSON and returns the status; raises HTTPError when it is not a success."""
    headers = {"Content-Type": "application/json"}
    with urlopen(Request(url, json.dumps(body).encode(), headers, method="PUT"), timeout=10) as answer:
        return int(answer.status)


class Process:
    """A program that runs until it is stopped, with its output in the file `log`."""

    started: ClassVar[list["Process"]] = []  # by the test that runs now

    def __init__(self, arguments: list[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as out, _uninterrupted():  # else a process might run that is not in `started`
            self._process = subprocess.Popen(
                arguments, stdout=out, stderr=out, env={**os.environ, **(environment or {})}
            )
            self.started.append(self)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def is_running(self) -> bool:
        """Returns whether it has not ended."""
        return self._process.poll() is None

    def stop(self, *, within: float = 40) -> int:
        """Sends SIGTERM and returns the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(within)

    def kill(self) -> None:
        """Sends SIGKILL and waits for the end."""
        self._process.kill()
        self._process.wait(10)

    def end(self) -> None:
        """Kills it if it runs."""
        if self.is_running():
            self.kill()

    def peak_memory(self) -> int:
        """Returns the peak of its resident memory so far, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def output(self) -> str:
        """Returns what it has printed so far, stderr included."""
        return self.log.read_text(errors="replace")

    def state(self) -> str:
        """Returns a line for people: whether it runs, or how it ended."""
        code = self._process.poll()
        return f"{self.log.name}: {'running' if code is None else f'ended with {code}'}"


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Defers signals that would end this process until the block is done."""
    came: list[signal.Signals] = []
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():  # where signals are handled
        for how in (signal.SIGINT, signal.SIGTERM):
            before[how] = signal.signal(how, lambda number, _: came.append(signal.Signals(number)))
    try:
        yield
    finally:
        for how, handler in before.items():
            signal.signal(how, handler)
    for how in came:
        signal.raise_signal(how)


def until(
    what: str,
    look: Callable[[], T | None],
    *,
    within: float = 30,
    every: float = 0.05,
    needs: Iterable[Process] = (),
) -> T:
    """Calls `look` again and again until its result is true, and returns that.

    Fails after `within` seconds, and at once when a process of `needs` has ended. `what` names the condition.
    """
    deadline = time.monotonic() + within
    while True:
        found = look()
        if found:
            return found
        for process in needs:
            assert process.is_running(), f"{what}: {process.state()}: {process.output()[-2000:]}"
        assert time.monotonic() < deadline, f"{what}: not within {within} s"
        time.sleep(every)


_BUILT = Path(__file__).parent.parent.parent / ".cache" / "parts" / "bin"  # by .ci/install-parts
DISTRIBUTION_3, GGCR, CRANE = (_BUILT / name for name in ("registry", "ggcr-registry", "crane"))


@dataclass
class Distribution:
    """distribution, which notifies one URL or none: Debian's docker-registry (2.8) or another program of its kind."""

    folder: Path
    port: int = field(default_factory=free_port)
    notify: str | None = None
    headers: dict[str, list[str]] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)  # fields of its configuration
    program: str = "docker-registry"
    process: Process | None = None
    kind: ClassVar[str] = "distribution"  # of its notifications
    lists_referrers: ClassVar[bool] = False  # by the API
    answers_subject: ClassVar[bool] = False  # `OCI-Subject` to a PUT, as the specification asks
    notifies: ClassVar[bool] = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> "Distribution":
        """Starts it and waits until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = Process(
            self._command(), self.folder / "registry.log", {"OTEL_TRACES_EXPORTER": "none"}
        )
        until(f"{self.url} answers", self._answers, needs=[self.process])
        return self

    def _command(self) -> list[str]:
        settings: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.folder / "data")},
                "delete": {"enabled": True},
            },
            "http": {"addr": self.host, "secret": "not-one"},
        }
        if self.notify is not None:
            endpoint = {
                "name": "regmesh", "url": self.notify, "headers": self.headers, "timeout": "1s", "threshold": 3,
                "backoff": "200ms",
            }  # fmt: skip
            settings["notifications"] = {"endpoints": [endpoint]}
        file = self.folder / "registry.yml"
        file.write_text(yaml.safe_dump({**settings, **self.extra}))
        return [self.program, "serve", str(file)]

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/v2/", timeout=10):
                return True
        except HTTPError as error:
            return error.code == 401  # behind authentication
        except (URLError, ConnectionError, TimeoutError):
            return False

    def digest(self, repository: str, reference: str) -> str | None:
        """Returns the digest that the registry answers to a HEAD of a manifest."""
        accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"
        request = Request(
            f"{self.url}/v2/{repository}/manifests/{reference}", method="HEAD", headers={"Accept": accept}
        )
        try:
            with urlopen(request, timeout=10) as answer:
                return str(answer.headers["Docker-Content-Digest"])
        except (HTTPError, URLError):
            return None

    def has_blob(self, repository: str, digest: str) -> bool:
        """Returns whether the registry answers 200 to a HEAD of a blob."""
        try:
            with urlopen(
                Request(f"{self.url}/v2/{repository}/blobs/{digest}", method="HEAD"), timeout=10
            ) as answer:
                return int(answer.status) == 200
        except (HTTPError, URLError):
            return False

    def end(self) -> None:
        """Kills it if it runs."""
        if self.process is not None:
            self.process.end()


@dataclass
class GoContainerRegistry(Distribution):
    """The registry of `crane registry serve`: with the referrers API, without notifications."""

    program: str = str(GGCR)
    lists_referrers: ClassVar[bool] = True
    notifies: ClassVar[bool] = False

    def _command(self) -> list[str]:
        blobs = self.folder / "blobs"
        blobs.mkdir(exist_ok=True)
        return [self.program, "-address", self.host, "-disk", str(blobs)]


@dataclass
class Zot(Distribution):
    """zot with its `events` extension."""

    program: str = "zot"
    kind: ClassVar[str] = "zot"
    lists_referrers: ClassVar[bool] = True
    answers_subject: ClassVar[bool] = True

    def _command(self) -> list[str]:
        host, port = self.host.split(":")
        settings: dict[str, Any] = {
            "storage": {"rootDirectory": str(self.folder / "data"), "gc": False},
            "http": {"address": host, "port": port},
            "log": {"level": "warn"},
        }
        if self.notify is not None:
            headers = {name: values[0] for name, values in self.headers.items()}
            sink = {"type": "http", "address": self.notify, "timeout": "2s", "headers": headers}
            settings["extensions"] = {"events": {"enable": True, "sinks": [sink]}}
        file = self.folder / "zot.json"
        file.write_text(json.dumps({**settings, **self.extra}))
        return [self.program, "serve", str(file)]


@contextmanager
def distributions(folder: Path, *names: str) -> Iterator[list[Distribution]]:
    """Yields registries that are not started yet, so that a test can set the URL they notify."""
    made = [Distribution(folder / name) for name in names]
    try:
        yield made
    finally:
        for registry in made:
            registry.end()


def regmesh(log: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Process:
    """Starts a regmesh command as a daemon."""
    return Process([_regmesh(), *arguments, "--log-format", "json"], log, environment)


def run_regmesh(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Runs a regmesh command to its end; `timeout` is in seconds."""
    return subprocess.run(
        [_regmesh(), *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


def _regmesh() -> str:
    return str(Path(sys.executable).parent / "regmesh")


def skopeo(*arguments: str, within: float = 300) -> str:
    """Runs skopeo, asserts that it succeeds, and returns its output."""
    done = subprocess.run(
        ["skopeo", "--insecure-policy", *arguments],
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )
    assert done.returncode == 0, f"skopeo {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def push(layout: Path, tag: str, registry: Distribution, image: str) -> None:
    """Pushes an image of an OCI layout unchanged, with all its platforms."""
    skopeo(
        "copy", "--all", "--preserve-digests", "--dest-tls-verify=false",
        f"oci:{layout}:{tag}", f"docker://{registry.host}/{image}",
    )  # fmt: skip


def pull(registry: Distribution, image: str, layout: Path) -> str:
    """Pulls an image with all its platforms into an OCI layout, and returns its digest."""
    skopeo(
        "copy", "--all", "--preserve-digests", "--src-tls-verify=false",
        f"docker://{registry.host}/{image}", f"oci:{layout}:pulled",
    )  # fmt: skip
    index = json.loads((layout / "index.json").read_text())
    return str(index["manifests"][0]["digest"])


class Receiver:
    """A webhook receiver in a thread. It keeps what is signed with `secret` and counts what is not."""

    def __init__(self, secret: str) -> None:
        self.verified: list[dict[str, Any]] = []
        self.refused = 0
        verifier = standardwebhooks.Webhook(secret)
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                try:
                    verifier.verify(body.decode(), dict(self.headers))
                except standardwebhooks.WebhookVerificationError:
                    receiver.refused += 1
                    self.send_response(401)
                else:
                    receiver.verified.append(json.loads(body))
                    self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the server and its thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
