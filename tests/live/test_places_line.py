"""`regmesh where`, `wait`, `usage` and `get replicas` as a user types them, over real registries."""

import json
from pathlib import Path

import pytest

from tests.support import images, parts
from tests.support.parts import until

pytestmark = [pytest.mark.real("docker-registry", "skopeo")]

MESH = """\
regions:
  - {name: beijing, jurisdiction: cn}
  - {name: shanghai, jurisdiction: cn}
instances:
  - {name: game-cn, account: game, region: beijing, url: "SOURCE"}
replicas:
  - {instance: game-cn, region: shanghai, url: "REPLICA"}
"""


def test_wait_and_where_find_a_push_at_the_replica(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{parts.free_port()}"
    image = images.image(layers=[b"app" * 1000])
    layout = images.write_layout(tmp_path / "pushed", {"v1": image})
    file = tmp_path / "mesh.yaml"
    with parts.distributions(tmp_path, "source", "replica") as (source, replica):
        source.notify = f"{url}/v1/notifications/game-cn"
        file.write_text(MESH.replace("SOURCE", source.url).replace("REPLICA", replica.url))
        listen = url.removeprefix("http://")
        daemon = parts.regmesh(
            tmp_path / "up.log", "up", "-f", str(file), "--data", str(tmp_path / "data"), "--listen", listen
        )
        try:
            source.start()
            replica.start()
            until(
                "the file is declared",
                lambda: parts.get(f"{url}/api/v1/replicas/game-cn@shanghai"),
                needs=[daemon],
            )
            parts.push(layout, "v1", source, "game/app:v1")
            _commands(url, str(image.digest))
            assert replica.digest("game/app", "v1") == image.digest
        finally:
            daemon.end()


def _commands(url: str, digest: str) -> None:
    server = ("--server", url)
    waited = parts.run_regmesh("wait", "game-cn/game/app:v1", "--digest", digest, "--timeout", "40", *server)
    assert (waited.returncode, waited.stdout, waited.stderr) == (0, "", "")
    found = parts.run_regmesh("where", "game-cn/game/app", *server)
    assert found.returncode == 0, found.stderr
    (line,) = (line for line in found.stdout.splitlines() if "game-cn@shanghai" in line)
    assert digest[:19] in line
    assert "current" in line
    assert line.split()[-1] == "agent"
    (tag,) = json.loads(parts.run_regmesh("where", "game-cn/game/app:v1", "-o", "json", *server).stdout)
    assert {place["place"] for place in tag["places"]} == {"game-cn", "game-cn@shanghai"}

    late = parts.run_regmesh("wait", "game-cn/game/app:none", "--timeout", "0", *server)
    assert late.returncode == 1
    assert late.stderr.startswith(
        "regmesh: shanghai: game-cn@shanghai does not have it: it is not known which digest"
    )
    for wrong in (("--region", "frankfurt"), ("--digest", "v1")):
        done = parts.run_regmesh("wait", "game-cn/game/app:v1", *wrong, *server)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)

    usage = until("the sync log has it", lambda: _usage(server))
    assert "beijing" in usage
    assert "shanghai" in usage
    shown = until("it is filled", lambda: _replicas(server))
    assert "http://127.0.0.1:" in shown


def _usage(server: tuple[str, str]) -> str | None:
    done = parts.run_regmesh("usage", "--since", "1d", *server)
    assert done.returncode == 0, done.stderr
    return done.stdout if "game-cn@shanghai" in done.stdout and "game " in done.stdout else None


def _replicas(server: tuple[str, str]) -> str | None:
    done = parts.run_regmesh("get", "replicas", *server)
    assert done.returncode == 0, done.stderr
    return done.stdout if "Synced" in done.stdout else None
