"""Deletions between real registries: docker-registry notifies them, and deletes digests only."""

import os
from typing import Any

import pytest

from tests.live.test_line import Line, kafka, line, receiver, registries
from tests.support import images, parts
from tests.support.parts import until

__all__ = ["kafka", "line", "receiver", "registries"]  # fixtures

pytestmark = [pytest.mark.real("docker-registry", "skopeo")]


def test_what_skopeo_deletes_here_is_deleted_there(line: Line) -> None:
    rule = line.document()["rules"][0] | {"deletion": True}
    applied = parts.run_regmesh("apply", "-f", str(line.mesh_file(rules=[rule])), "--server", line.api)
    assert applied.returncode == 0, applied.stderr
    one, other = images.image(layers=[os.urandom(1000)]), images.image(layers=[os.urandom(1000)])
    layout = images.write_layout(line.folder / "pushed", {"v1": one, "v2": other})
    for name, tag in (("v1", "v1"), ("v1", "latest"), ("v2", "v2")):
        parts.push(layout, name, line.source, f"game/app:{tag}")
        line.ended("game/app", tag)

    parts.skopeo("delete", "--tls-verify=false", f"docker://{line.source.host}/game/app:v1")
    entry = until("the deletion in the sync log", lambda: _deletions(line, status="Succeed"))[0]
    assert (entry["operation"], entry["digest"]) == ("delete", one.digest)
    for tag in ("v1", "latest"):  # of one digest, which the source deleted with both, and notified each
        until(f"{tag} is gone there", lambda tag=tag: line.destination.digest("game/app", tag) is None)
    until("both ended", lambda: {entry["tag"] for entry in _deletions(line)} >= {"v1", "latest"})
    assert line.destination.digest("game/app", one.digest) is None
    assert line.destination.digest("game/app", "v2") == other.digest
    assert _deletions(line, status="Failed") == []


def _deletions(line: Line, **query: str) -> list[dict[str, Any]]:
    return [entry for entry in line.log(**query) if entry["operation"] == "delete"]
