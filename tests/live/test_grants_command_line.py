"""Grants on the command line: the note of `apply`, `get`, `delete`, and a grant for an unknown account."""

from pathlib import Path

from tests.support import parts
from tests.support.parts import until

MESH = """\
regions:
  - {name: eu, jurisdiction: global}
instances:
  - {name: hub, account: platform, region: eu, url: "http://127.0.0.1:5001"}
  - {name: shop, account: shop, region: eu, url: "http://127.0.0.1:5002"}
rules:
  - {name: base, source: hub, destination: shop, destination_namespace: base}
"""
GRANT = """\
grants:
  - {account: shop, from: platform, namespaces: ["base/**"]}
"""


def test_grants_on_the_command_line(tmp_path: Path) -> None:
    mesh, grant, wrong = tmp_path / "mesh.yaml", tmp_path / "grant.yaml", tmp_path / "wrong.yaml"
    mesh.write_text(MESH)
    grant.write_text(GRANT)
    wrong.write_text(GRANT.replace("from: platform", "from: platfrom"))
    listen = f"127.0.0.1:{parts.free_port()}"
    daemon = parts.regmesh(
        tmp_path / "up.log", "up", "-f", str(mesh), "--data", str(tmp_path / "data"), "--listen", listen
    )

    def regmesh(*words: str) -> tuple[int, str, str]:
        done = parts.run_regmesh(*words, "--server", f"http://{listen}")
        return done.returncode, done.stdout, done.stderr

    try:
        until("up is ready", lambda: parts.get(f"http://{listen}/readyz"), needs=[daemon])
        until(
            "the file is declared",
            lambda: parts.get(f"http://{listen}/api/v1/rules")["items"],
            needs=[daemon],
        )
        code, out, _ = regmesh("apply", "-f", str(mesh))
        assert code == 0
        assert "note: rule/base copies nothing until account 'shop' declares a grant for 'platform'" in out
        code, _, errors = regmesh("apply", "-f", str(wrong))
        assert (
            code,
            "wrong.yaml:2: grants[0].from: no instance belongs to account 'platfrom'" in errors,
        ) == (
            2,
            True,
        )
        assert regmesh("apply", "-f", str(grant))[0] == 0
        assert "note" not in regmesh("apply", "-f", str(mesh))[1]
        assert all(word in regmesh("get", "grants")[1] for word in ("shop:platform", "base/**"))
        assert regmesh("get", "grant", "shop:platform", "-o", "json")[0] == 0
        assert regmesh("delete", "grant", "shop:platform")[:2] == (0, "grant/shop:platform deleted\n")
    finally:
        daemon.end()
