"""`regmesh doctor` and `get dead-letters` while something is wrong."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.support import parts
from tests.support.parts import until

MESH = """\
regions:
  - {name: beijing, jurisdiction: cn-mainland}
  - {name: frankfurt, jurisdiction: global}
instances:
  - {name: game-cn, account: game, region: beijing, url: "http://127.0.0.1:PORT", kind: harbor}
  - {name: game-eu, account: game, region: frankfurt, url: "http://127.0.0.1:PORT"}
rules:
  - {name: release, source: game-cn, destination: game-eu}
"""


def test_a_notification_of_an_unknown_shape_is_accepted_counted_and_shown(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(MESH.replace("PORT", str(parts.free_port())))
    url = f"http://127.0.0.1:{parts.free_port()}"
    listen = url.removeprefix("http://")
    daemon = parts.regmesh(
        tmp_path / "up.log", "up", "-f", str(file), "--data", str(tmp_path / "data"), "--listen", listen
    )
    try:
        until("up is ready", lambda: parts.get(f"{url}/readyz"), needs=[daemon])
        until("the file is declared", lambda: parts.get(f"{url}/api/v1/regions")["items"], needs=[daemon])
        with urlopen(_notification(f"{url}/v1/notifications/game-cn", b'{"a shape of": "nobody"}')) as answer:
            assert answer.status == 202
        doctor = until(
            "the dead letter and the unreachable registry are reported",
            lambda: _findings(url, "notification", "instance/game-eu"),
        )
        dead_letter = next(one for one in doctor if "notification" in one["message"])
        assert dead_letter["about"] == "instance/game-cn"
        assert dead_letter["message"].startswith(
            "1 notification of notifications/game-cn could not be read: "
        )
        done = parts.run_regmesh("doctor", "--server", url)
        assert done.returncode == 1
        assert "regmesh get dead-letters" in done.stdout
        assert "instance/game-eu" in done.stdout  # no registry answers there
        (shown,) = json.loads(parts.run_regmesh("get", "dead-letters", "-o", "json", "--server", url).stdout)
        assert json.loads(shown["payload"]) == {"a shape of": "nobody"}
        assert shown["position"].startswith("notifications/game-cn")
    finally:
        daemon.end()


def test_dismissals_survive_a_restart_and_refusals_are_reported(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(MESH.replace("PORT", str(parts.free_port())))
    url = f"http://127.0.0.1:{parts.free_port()}"
    up = ("up", "-f", str(file), "--data", str(tmp_path / "data"), "--listen", url.removeprefix("http://"))
    daemon = parts.regmesh(tmp_path / "up.log", *up)
    try:
        until("up is ready", lambda: parts.get(f"{url}/readyz"))
        until("the file is declared", lambda: parts.get(f"{url}/api/v1/regions")["items"])
        for body in (b'{"a shape of": "nobody"}', b"not JSON"):
            urlopen(_notification(f"{url}/v1/notifications/game-cn", body)).close()
        with pytest.raises(HTTPError, match="404"):
            urlopen(_notification(f"{url}/v1/notifications/game-xn", b"{}"))
        until("both dead letters are listed", lambda: len(_dead_letters(url)) == 2)
        found = until("the refusal is reported", lambda: _findings(url, "instance/game-xn"))
        refused = next(one for one in found if one["about"] == "instance/game-xn")
        assert refused["message"].startswith("1 notification was refused (404), the last at ")
        assert refused["advice"].endswith("did you mean 'game-cn'?")
        done = parts.run_regmesh("delete", "dead-letter", _dead_letters(url)[0]["id"], "--server", url)
        assert (done.returncode, len(_dead_letters(url))) == (0, 1)
        assert daemon.stop() == 0
        daemon = parts.regmesh(tmp_path / "up.log", *up)
        until("up is ready again", lambda: parts.get(f"{url}/readyz"))
        until("the other dead letter is listed", lambda: len(_dead_letters(url)) == 1)
        assert (
            parts.run_regmesh("delete", "dead-letters", "--all", "--server", url).stdout
            == "1 dead letter deleted\n"
        )
        assert "could not be read" not in parts.run_regmesh("doctor", "--server", url).stdout
    finally:
        daemon.end()


def _dead_letters(url: str) -> list[dict[str, str]]:
    done = parts.run_regmesh("get", "dead-letters", "-o", "json", "--server", url)
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def _notification(url: str, body: bytes) -> Request:
    return Request(url, body, {"Content-Type": "application/json"}, method="POST")


def _findings(url: str, *words: str) -> list[dict[str, str]] | None:
    done = parts.run_regmesh("doctor", "-o", "json", "--server", url)
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found if all(word in done.stdout for word in words) else None


def test_a_database_cut_in_half_is_refused_at_start_and_a_new_one_is_made_without_it(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(MESH.replace("PORT", str(parts.free_port())))
    listen = f"127.0.0.1:{parts.free_port()}"
    command = ["up", "-f", str(file), "--data", str(tmp_path / "data"), "--listen", listen]

    def runs_once() -> None:
        daemon = parts.regmesh(tmp_path / "up.log", *command)
        try:
            until("the tables", lambda: parts.get(f"http://{listen}/api/v1/logs"), needs=[daemon])
            assert (parts.get(f"http://{listen}/readyz") or {})["notes"] == []
        finally:
            daemon.end()

    runs_once()
    database = tmp_path / "data" / "control.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(
            "PRAGMA wal_checkpoint(TRUNCATE)"
        )  # a file that lost pages which it has in its log is whole
    with database.open("r+b") as opened:
        opened.truncate(database.stat().st_size // 2)
    done = parts.run_regmesh(*command)
    assert done.returncode == 2
    assert f"{str(database)!r} is damaged" in done.stderr
    assert "move it away to start a new one" in done.stderr
    database.rename(tmp_path / "damaged.db")
    runs_once()
