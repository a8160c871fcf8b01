"""`regmesh relay-keys`: the keys of one region, for the regions that may send it blobs."""

from pathlib import Path

import pytest

from consumer.blobs.relay.signing import MeshKeys, RegionKeys, parse_keys
from mesh.node.cli import app
from schemas.names import Region

SECRET = "of the mesh"
MESH = """
regions:
  - {name: beijing, jurisdiction: cn, relay: {secret: RELAY}}
  - {name: shanghai, jurisdiction: cn, relay: {secret: RELAY}}
  - {name: chengdu, jurisdiction: cn, relay: {secret: RELAY}}
  - {name: wuhan, jurisdiction: cn}
  - {name: oslo, jurisdiction: eu, relay: {secret: RELAY}}
  - {name: rome, jurisdiction: eu, relay: {secret: RELAY}}
instances:
  - {name: game, account: a, region: beijing, url: "https://game.example"}
  - {name: other, account: a, region: beijing, url: "https://other.example"}
  - {name: eu, account: a, region: oslo, url: "https://eu.example"}
replicas:
  - {instance: game, region: shanghai, url: "https://game.sh.example"}
  - {instance: game, region: chengdu, url: "https://game.cd.example"}
  - {instance: other, region: wuhan, url: "https://other.wh.example"}
  - {instance: eu, region: rome, url: "https://eu.rm.example"}
"""


@pytest.fixture
def mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("REGMESH_SECRET_RELAY", SECRET)
    file = tmp_path / "mesh.yaml"
    file.write_text(MESH)
    return str(file)


def test_a_region_gets_keys_for_those_that_share_an_instance_with_it(
    mesh: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["relay-keys", "shanghai", "-f", mesh]) == 0
    printed = capsys.readouterr().out
    keys = parse_keys(printed.strip())
    assert isinstance(keys, RegionKeys)
    assert SECRET not in printed
    shanghai, of_the_mesh = Region("shanghai"), MeshKeys(SECRET)
    known = {
        name: keys.key_of(Region(name), shanghai) == of_the_mesh.key_of(Region(name), shanghai)
        for name in ("shanghai", "chengdu", "beijing", "wuhan", "oslo", "rome")
    }
    assert {name for name, is_right in known.items() if is_right} == {"shanghai", "chengdu"}


@pytest.mark.parametrize(
    ("region", "what"),
    [("mars", "declares no region 'mars'"), ("wuhan", "declares no relay"), ("NOT", "is not a region name")],
)
def test_a_region_without_a_relay_has_no_keys(
    mesh: str, region: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["relay-keys", region, "-f", mesh]) in (1, 2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert what in shown.err


def test_the_keys_of_one_region_make_none_of_another(
    mesh: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["relay-keys", "shanghai", "-f", mesh]) == 0
    monkeypatch.setenv("REGMESH_SECRET_RELAY", capsys.readouterr().out)
    assert app.run(["relay-keys", "chengdu", "-f", mesh]) != 0
    assert "use the mesh's secret" in capsys.readouterr().err
