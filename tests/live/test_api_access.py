"""Who may call the API of `regmesh up` and `regmesh control`, and the intake on an address of its own."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.support import parts
from tests.support.parts import Process, until

MESH = """\
regions: [{name: beijing, jurisdiction: cn}]
instances: [{name: game, account: game, region: beijing, url: "http://127.0.0.1:PORT"}]
"""
API, NOTIFICATION = "/api/v1/regions", "/v1/notifications/game"


@dataclass
class Up:
    """A `regmesh up` that listens on `port`."""

    process: Process
    port: int

    def ask(
        self, host: str, path: str, *, port: int | None = None, body: bytes | None = None, **headers: str
    ) -> tuple[int, str]:
        """Returns status and body of an answer; POST with a body, else GET."""
        connection = HTTPConnection(host, port or self.port, timeout=10)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("GET" if body is None else "POST", path, body, named)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


@contextmanager
def up(folder: Path, *options: str, host: str = "0.0.0.0") -> Iterator[Up]:
    file, port = folder / "mesh.yaml", parts.free_port()
    file.write_text(MESH.replace("PORT", str(parts.free_port())))
    common = ("up", "-f", str(file), "--data", str(folder / "data"), "--listen", f"{host}:{port}")
    process = parts.regmesh(
        folder / f"up-{port}.log", *common, *options
    )  # a second run has output of its own
    try:
        until("it is declared", lambda: "regmesh is up at" in process.output(), needs=[process])
        yield Up(process, port)
    finally:
        process.end()


def _message(answer: tuple[int, str]) -> str:
    assert answer[0] == 403, answer
    error = json.loads(answer[1])["error"]
    assert error["code"] == "forbidden"
    return str(error["message"])


@pytest.fixture
def own_address() -> str:
    found = parts.own_address()
    assert found is not None
    return found


@pytest.mark.real("network")
def test_on_every_address_the_api_answers_this_machine_alone_until_it_is_opened(
    tmp_path: Path, own_address: str
) -> None:
    with up(tmp_path) as site:
        assert site.ask("127.0.0.1", API)[0] == 200
        assert "--api-open" in _message(site.ask(own_address, API))
        assert "--api-open" in _message(site.ask(own_address, "/api/v1/apply", body=b"{}"))
        assert {site.ask(own_address, path)[0] for path in ("/healthz", "/readyz", "/metrics")} == {200}
        assert "intake_secret" in site.ask(own_address, NOTIFICATION, body=b"{}")[1]
        assert "api_local_only" in site.process.output()
        assert site.process.stop() == 0
    with up(tmp_path, "--api-open", "--api-host", "regmesh.internal") as site:
        assert site.ask(own_address, API)[0] == 200
        assert site.ask(own_address, API, Host=f"regmesh.internal:{site.port}")[0] == 200
        for host in ("127.0.0.1", own_address):
            assert "--api-host" in _message(site.ask(host, API, Host="rebound.example"))
            assert site.ask(host, "/readyz", Host="rebound.example")[0] == 200


def test_the_intake_on_an_address_of_its_own_serves_nothing_else(tmp_path: Path) -> None:
    intake = parts.free_port()
    with up(tmp_path, "--intake-listen", f"127.0.0.1:{intake}", host="127.0.0.1") as site:
        assert f"sends notifications to http://127.0.0.1:{intake}{NOTIFICATION}" in site.process.output()
        assert site.ask("127.0.0.1", NOTIFICATION, port=intake, body=b'{"events": []}')[0] == 202
        for path in ("/healthz", "/readyz"):
            assert site.ask("127.0.0.1", path, port=intake)[0] == 200, path
        relay = f"/v1/relay/game@beijing/app/blobs/sha256:{'0' * 64}"
        for path in (API, "/metrics", relay, "/"):
            assert site.ask("127.0.0.1", path, port=intake)[0] == 404, path
        assert site.ask("127.0.0.1", NOTIFICATION, body=b'{"events": []}')[0] == 404
        assert site.ask("127.0.0.1", API)[0] == 200


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--intake-listen", "8081"), "HOST:PORT"),
        (("--intake-listen", "127.0.0.1:TAKEN"), "--intake-listen"),
        (("--api-host", "regmesh.internal:8080"), "--api-host"),
        (("--api-host", "http://regmesh.internal"), "--api-host"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, options: Sequence[str], named: str) -> None:
    file, port = tmp_path / "mesh.yaml", parts.free_port()
    file.write_text(MESH.replace("PORT", str(parts.free_port())))
    arguments = [it.replace("TAKEN", str(port)) for it in options]
    done = parts.run_regmesh(
        "up", "-f", str(file), "--data", str(tmp_path / "data"), "--listen", f"127.0.0.1:{port}", *arguments
    )
    assert done.returncode in (1, 2)
    assert named in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
