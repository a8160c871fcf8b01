"""`regmesh up` with few file descriptors goes on copying while hundreds of clients send half a request."""

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml

from tests.soak.fill import document
from tests.support import images, parts
from tests.support.parts import Distribution, Process, until

pytestmark = [pytest.mark.real("docker-registry", "skopeo")]

HALF = {
    "the headers": b"POST /v1/notifications/game HTTP/1.1\r\nHost: x\r\nX-A: ",
    "the body": b"POST /v1/notifications/game HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
}


@contextmanager
def half_requests(address: tuple[str, int], sent: bytes, count: int) -> Iterator[list[socket.socket]]:
    """Keeps `count` connections open that send nothing more, and opens new ones for those that are closed."""
    clients: list[socket.socket] = []
    ended = threading.Event()

    def is_closed(client: socket.socket) -> bool:
        try:
            return client.recv(1000, socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def run() -> None:
        while not ended.is_set():
            for client in [it for it in clients if is_closed(it)]:
                clients.remove(client)
                client.close()
            while len(clients) < count and not ended.is_set():
                try:
                    client = socket.create_connection(address, timeout=2)
                    client.sendall(sent)
                except OSError:
                    break
                clients.append(client)
            ended.wait(0.2)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield clients
    finally:
        ended.set()
        thread.join()
        for client in clients:
            client.close()


@pytest.mark.parametrize("half", HALF)
def test_a_push_is_copied_while_300_clients_send_half_a_request(tmp_path: Path, half: str) -> None:
    address = ("127.0.0.1", parts.free_port())
    api = f"http://127.0.0.1:{address[1]}"
    source = Distribution(tmp_path / "game", notify=f"{api}/v1/notifications/game")
    replica = Distribution(tmp_path / "replica")
    file = tmp_path / "mesh.yaml"
    up: Process | None = None
    try:
        source.start()
        replica.start()
        file.write_text(yaml.safe_dump(document(source, replica)))
        up = _start_up(tmp_path, file, api)
        layout = tmp_path / "layout"
        images.write_layout(layout, {"v1": images.image(layers=[b"a layer"])})
        with half_requests(address, HALF[half], 300):
            until("the listener is full", lambda: "http_connections_ended" in up.output(), needs=[up])
            parts.push(layout, "v1", source, "team/app:v1")
            until("the copy", lambda: replica.digest("team/app", "v1"), within=60, needs=[up])
            until("the API answers", lambda: _is_alive(api), needs=[up])
        assert replica.digest("team/app", "v1") == source.digest("team/app", "v1")
        assert "Too many open files" not in up.output()
    finally:
        for process in (up, source.process, replica.process):
            if process is not None:
                process.end()


def _is_alive(api: str) -> bool:
    try:
        with urlopen(f"{api}/healthz", timeout=2) as answer:
            return int(answer.status) == 200
    except OSError:
        return False


def _start_up(folder: Path, file: Path, api: str) -> Process:
    """Starts `regmesh up` under `ulimit -n 256`."""
    program = str(Path(sys.executable).parent / "regmesh")
    command = [
        program, "up", "-f", str(file), "--data", str(folder / "data"), "--listen", api.removeprefix("http://"),
        "--log-format", "json",
    ]  # fmt: skip
    started = Process(["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *command], folder / "up.log")
    until("up is ready", lambda: parts.get(f"{api}/readyz"), within=60, needs=[started])
    return started
