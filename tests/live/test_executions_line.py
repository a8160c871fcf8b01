"""An execution on real parts: docker-registry's own listing, daemons, and the command as a user types it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.live.test_line import Line, kafka, line, receiver, registries
from tests.support import images, parts
from tests.support.parts import until

__all__ = ["kafka", "line", "receiver", "registries"]  # fixtures

pytestmark = [pytest.mark.real("docker-registry", "skopeo")]

BY_HAND = """\
rules:
  - name: by-hand
    source: game-cn
    destination: game-eu
    trigger: {type: manual}
    filters:
      - {type: name, value: "tools/**"}
      - {type: tag, value: "v*"}
"""

FOREIGN = """\
instances:
  - {name: shop, account: shop, region: frankfurt, url: "URL"}
rules:
  - name: into-a-foreign-account
    source: game-cn
    destination: shop
    trigger: {type: manual}
    filters:
      - {type: name, value: "tools/**"}
      - {type: tag, value: "v*"}
"""


def test_sync_copies_the_existing_tags_and_reports_them(line: Line, tmp_path: Path) -> None:
    made = {f"v{number}": images.image(layers=[os.urandom(100_000), bytes([number])]) for number in range(3)}
    made["dev"] = images.image(layers=[b"not wanted"])
    layout = images.write_layout(tmp_path / "pushed", made)
    for tag in made:
        parts.push(layout, tag, line.source, f"tools/app:{tag}")
    (tmp_path / "by-hand.yaml").write_text(BY_HAND)
    server = ("--server", line.api)
    assert parts.run_regmesh("apply", "-f", str(tmp_path / "by-hand.yaml"), *server).returncode == 0

    planned = parts.run_regmesh("sync", "by-hand", "--dry-run", *server)
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.count("would copy 3 of 3 blobs") == 3
    assert "3 of 3 tags would be copied, " in planned.stdout
    assert "skipped" not in planned.stderr

    done = parts.run_regmesh("sync", "by-hand", "--wait", *server)
    assert done.returncode == 0, done.stderr
    assert "Succeed: 3 tags: 3 succeed" in done.stderr
    again = parts.run_regmesh("sync", "by-hand", "--dry-run", *server)
    assert "0 of 3 tags would be copied, 0 B sent" in again.stdout
    for tag in ("v0", "v1", "v2"):
        pulled = parts.pull(line.destination, f"tools/app:{tag}", tmp_path / f"pulled-{tag}")
        assert pulled == made[tag].digest
    shown = parts.run_regmesh("logs", "--execution", done.stdout.strip(), "-o", "json", *server)
    assert sorted(entry["tag"] for entry in json.loads(shown.stdout)) == ["v0", "v1", "v2"]

    foreign = FOREIGN.replace("URL", line.destination.url)
    (tmp_path / "foreign.yaml").write_text(foreign)
    assert parts.run_regmesh("apply", "-f", str(tmp_path / "foreign.yaml"), *server).returncode == 0
    refused = parts.run_regmesh("sync", "into-a-foreign-account", "--wait", *server)
    assert refused.returncode == 1, refused.stderr
    assert "Succeed: 3 tags: 3 skipped (3 refused)" in refused.stderr
    assert "3 may not be copied" in refused.stderr

    line.destination.end()
    failed = parts.run_regmesh("sync", "by-hand", "--tag", "v1", "--wait", *server)
    assert failed.returncode == 1
    assert "1 parked" in failed.stderr
    assert "1 failed for now and will be retried" in failed.stderr
    parked = parts.run_regmesh("get", "parked", "-o", "json", *server)
    (waiting,) = json.loads(parked.stdout)
    assert (waiting["tag"], waiting["status"], waiting["error"]["code"]) == ("v1", "Pending", "unreachable")
    line.destination.start()
    again = parts.run_regmesh("retry", "--failed", *server)
    assert "1 parked: retried now" in again.stdout
    until("nothing is parked", lambda: parts.get(f"{line.api}/api/v1/parked")["items"] == [])
    # Two topics, and on Kafka the end of the parking may be read before the end of the task.
    ended = {"repository": "tools/app", "tag": "v1", "execution": waiting["execution_id"]}
    assert len(until("the end of the task", lambda: line.log(**ended))) == 1


def test_a_run_that_is_stopped_takes_nothing_from_an_earlier_run(line: Line, tmp_path: Path) -> None:
    """Two runs of one rule over the same tags, slow enough that the second comes while the first copies."""
    tags = [f"v{number:02}" for number in range(12)]
    made = {tag: images.image(layers=[os.urandom(100_000)]) for tag in tags}
    layout = images.write_layout(tmp_path / "pushed", made)
    for tag in tags:
        parts.push(layout, tag, line.source, f"tools/app:{tag}")
    rule = BY_HAND.replace("trigger: {type: manual}", "trigger: {type: manual}\n    speed: 300000")
    (tmp_path / "by-hand.yaml").write_text(rule)
    server = ("--server", line.api)
    assert parts.run_regmesh("apply", "-f", str(tmp_path / "by-hand.yaml"), *server).returncode == 0

    first = parts.run_regmesh("sync", "by-hand", *server).stdout.strip()
    until("the first copies", lambda: line.log(execution=first, status="Succeed"), within=60)
    second = parts.run_regmesh("sync", "by-hand", *server).stdout.strip()
    until("the second is listed", lambda: execution(line, second)["total"] == len(tags), within=60)
    assert parts.run_regmesh("stop", second, *server).returncode == 0
    until("the first has ended", lambda: execution(line, first)["status"] != "InProgress", within=90)
    ended = execution(line, first)
    assert (ended["status"], ended["succeed"]) == ("Succeed", len(tags))
    for tag in tags:
        assert line.destination.digest("tools/app", tag) == made[tag].digest


def execution(line: Line, number: str) -> dict[str, Any]:
    """An execution as the API shows it."""
    found: dict[str, Any] = parts.get(f"{line.api}/api/v1/executions/{number}")
    return found
