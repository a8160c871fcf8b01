"""Docker's config.json and the credential helpers that it names, which are small scripts here."""

import asyncio
import base64
import json
import os
from asyncio.subprocess import Process
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mesh.credentials import helper as credential_helper
from mesh.credentials.credentials import Credentials
from mesh.credentials.helper import CredentialHelper
from mesh.credentials.secrets import Secrets
from mesh.errors import HelperFailed
from schemas.completions import Side
from tests.support.manual_clock import ManualClock

HOST = "registry.example:5000"
ANNA = {"ServerURL": HOST, "Username": "anna", "Secret": "hush"}


class Workplace:
    """A folder with a config.json, and one on PATH with helpers."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.environment = {
            "DOCKER_CONFIG": str(folder),
            "PATH": f"{folder}:{os.environ['PATH']}",
            "REGMESH_SECRET_PUSH": "the mesh's own",
        }

    def config(self, **fields: Any) -> None:
        (self.folder / "config.json").write_text(json.dumps(fields))

    def helper(self, script: str, name: str = "test") -> None:
        """Writes a helper that records each run with its input."""
        path = self.folder / f"docker-credential-{name}"
        path.write_text(f"#!/bin/sh\nserver=$(cat)\necho \"$1 $server\" >> '{self.folder}/asked'\n{script}\n")
        path.chmod(0o755)

    def says(self, answer: Mapping[str, object], name: str = "test") -> None:
        self.helper(f"cat <<'END'\n{json.dumps(answer)}\nEND", name)

    @property
    def asked(self) -> list[str]:
        file = self.folder / "asked"
        return file.read_text().splitlines() if file.exists() else []

    def secrets(self) -> Secrets:
        return Secrets(self.environment, self.clock)

    async def credentials(self, host: str = HOST, secrets: Secrets | None = None) -> Credentials | None:
        return await (secrets or self.secrets()).credentials(None, f"https://{host}").refresh(Side.SOURCE)

    async def failure(self) -> str:
        with pytest.raises(HelperFailed) as caught:
            await self.credentials()
        assert "hush" not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


async def test_the_helper_of_a_host_is_run_for_it(place: Workplace) -> None:
    place.says(ANNA)
    place.config(credHelpers={HOST: "test"}, credsStore="nobody")
    assert await place.credentials() == Credentials("anna", "hush")
    assert place.asked == [f"get {HOST}"]


async def test_the_default_store_is_asked_for_hosts_without_a_helper_or_entry(place: Workplace) -> None:
    place.says(ANNA | {"Username": "store"})
    place.says(ANNA | {"Username": "helper"}, "other")
    plain = {"auth": base64.b64encode(b"plain:text").decode()}
    place.config(
        credsStore="test", credHelpers={"a.example": "other"}, auths={"b.example": plain, "c.example": {}}
    )
    users = [await place.credentials(host) for host in ("a.example", "b.example", "c.example", "d.example")]
    assert [found and found.user for found in users] == ["helper", "plain", "store", "store"]


async def test_docker_hub_is_looked_up_under_the_key_that_docker_uses(place: Workplace) -> None:
    place.says(ANNA)
    place.config(credsStore="test")
    await place.credentials("registry-1.docker.io")
    assert place.asked == ["get https://index.docker.io/v1/"]
    entry = {"auth": base64.b64encode(b"hub:user").decode()}
    for name in ("https://index.docker.io/v1/", "registry-1.docker.io"):
        place.config(auths={name: entry})
        assert await place.credentials("registry-1.docker.io") == Credentials("hub", "user")


async def test_an_identity_token_is_distinguished_from_a_password(place: Workplace) -> None:
    place.says(ANNA | {"Username": "<token>"})
    place.config(credsStore="test", auths={"b.example": {"auth": "Og==", "identitytoken": "of the file"}})
    assert await place.credentials() == Credentials(None, "hush", is_identity=True)
    assert await place.credentials("b.example") == Credentials(None, "of the file", is_identity=True)


async def test_a_helper_without_credentials_means_anonymous_access(place: Workplace) -> None:
    place.helper("echo credentials not found in native keychain; exit 1")
    place.config(credsStore="test")
    assert await place.credentials() is None


async def test_a_helper_need_not_read_its_input(place: Workplace) -> None:
    path = place.folder / "docker-credential-test"
    path.write_text(f"#!/bin/sh\nexec <&-\nsleep 0.1\necho '{json.dumps(ANNA)}'\n")
    path.chmod(0o755)
    place.config(credsStore="test")
    assert await place.credentials() == Credentials("anna", "hush")


async def test_a_helper_does_not_see_the_secrets_of_the_mesh(place: Workplace) -> None:
    place.helper('echo "{\\"Username\\": \\"anna\\", \\"Secret\\": \\"[$REGMESH_SECRET_PUSH]\\"}"')
    place.config(credsStore="test")
    assert await place.credentials() == Credentials("anna", "[]")


async def test_a_helper_that_prints_without_end_is_ended_though_the_pipe_is_full(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine it may have printed much before anybody reads."""
    real = CredentialHelper._communicate

    async def late(self: CredentialHelper, process: Process) -> bytes:
        await asyncio.sleep(0.5)
        return await real(self, process)

    monkeypatch.setattr(CredentialHelper, "_communicate", late)
    monkeypatch.setattr(credential_helper, "_MAX_OUTPUT", 16 * 1024)  # so that the pipe stays full at the end
    place.helper("yes hush")
    place.config(credsStore="test")
    assert "printed more than 16384 bytes" in await asyncio.wait_for(place.failure(), 10)


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("echo hush; echo hush >&2; exit 3", "ended with exit code 3"),
        ("echo hush", "printed no valid credentials"),
        ('echo \'{"Username": "anna", "Secret": ["hush"]}\'', "printed no valid credentials"),
        ("yes hush", "printed more than 65536 bytes"),
    ],
)
async def test_a_failure_names_the_helper_and_never_shows_its_output(
    place: Workplace, script: str, what: str
) -> None:
    place.helper(script)
    place.config(credsStore="test")
    advice = f"try `echo {HOST} | docker-credential-test get` where regmesh runs"
    assert await place.failure() == f"docker-credential-test {what}: {advice}"


async def test_a_helper_that_is_missing_or_cannot_be_run_is_named(place: Workplace) -> None:
    place.config(credsStore="test")
    assert (
        await place.failure() == f"docker-credential-test, which config.json names for {HOST}, is not on PATH"
    )
    (place.folder / "docker-credential-test").write_bytes(b"\x7fELF")
    (place.folder / "docker-credential-test").chmod(0o755)
    assert (await place.failure()).startswith("docker-credential-test cannot be run (Exec format error)")


@pytest.mark.parametrize("name", ["../test", "a/b", "te st", "-test", "x" * 65, "täst", "test\n"])
async def test_an_invalid_helper_name_is_not_run(place: Workplace, name: str) -> None:
    place.config(credsStore=name)
    assert "not a valid helper name" in await place.failure()
    assert place.asked == []


async def test_a_helper_that_hangs_is_killed_with_its_children(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credential_helper, "_TIMEOUT", 0.5)
    place.helper(f"sleep 600 &\necho $! > '{place.folder}/child'\nwait")
    place.config(credsStore="test")
    assert "gave no answer within" in await place.failure()
    child = int((place.folder / "child").read_text())
    async with asyncio.timeout(10):
        while _runs(child):
            await asyncio.sleep(0.01)


async def test_concurrent_calls_run_the_helper_once_and_its_answer_is_cached_for_minutes(
    place: Workplace,
) -> None:
    place.says(ANNA)
    place.config(credsStore="test")
    secrets = place.secrets()
    await asyncio.gather(*(place.credentials(secrets=secrets) for _ in range(5)))
    place.says(ANNA | {"Secret": "newer"})
    await place.clock.sleep(299)
    assert await place.credentials(secrets=secrets) == Credentials("anna", "hush")
    await place.clock.sleep(2)
    assert await place.credentials(secrets=secrets) == Credentials("anna", "newer")
    assert len(place.asked) == 2


async def test_rejected_credentials_and_failures_are_retried_after_ten_seconds(place: Workplace) -> None:
    place.says(ANNA)
    helper = CredentialHelper("test", HOST, place.environment, place.clock)
    first = await helper.refresh(Side.SOURCE)
    place.says(ANNA | {"Secret": "newer"})
    assert await helper.refresh(Side.SOURCE, rejected=first) == first  # cached for ten seconds
    await place.clock.sleep(11)
    assert await helper.refresh(Side.SOURCE, rejected=first) == Credentials("anna", "newer")
    assert await helper.refresh(Side.SOURCE, rejected=first) == Credentials("anna", "newer")
    place.helper("exit 1")
    await place.clock.sleep(301)
    for _ in range(2):
        with pytest.raises(HelperFailed):
            await helper.refresh(Side.SOURCE)
    assert len(place.asked) == 3
    place.says(ANNA)
    await place.clock.sleep(11)
    assert await helper.refresh(Side.SOURCE) == first


def _runs(process: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
