"""The built-in registry as a whole: names, counters, credentials, restarts, and skopeo as a client."""

import asyncio
import hashlib
from pathlib import Path

import aiohttp
import pytest
import yarl

from mesh.clock import SystemClock
from mesh.registry.builtin import BuiltinRegistry, Credentials
from tests.support.builtin_client import BLOB, Client


async def test_the_base_endpoint_answers(ask: Client):
    answer = await ask("GET", "/v2/")
    assert (answer.status, answer.json) == (200, {})


@pytest.mark.parametrize(
    "name", ["UPPER", "a..b", "%2e%2e/%2e%2e/etc", "_blobs", "a/_tags", "a%00b", "x" * 256]
)
async def test_an_invalid_name_is_refused(ask: Client, name: str):
    where = yarl.URL(f"{ask.registry.url}/v2/{name}/tags/list", encoded=True)  # sent as it stands
    answer = await ask("GET", where)
    assert (answer.status, answer.code) == (400, "NAME_INVALID")


async def test_an_unknown_repository_and_an_unknown_tag_have_their_own_codes(ask: Client):
    assert (await ask("GET", "/v2/app/tags/list")).code == "NAME_UNKNOWN"
    assert (await ask("GET", "/v2/app/manifests/1.0")).code == "NAME_UNKNOWN"
    await ask.push_blob("app", BLOB)
    assert (await ask("GET", "/v2/app/manifests/1.0")).code == "MANIFEST_UNKNOWN"


async def test_requests_and_blob_bytes_are_counted(ask: Client):
    digest = await ask.push_blob("app", BLOB)
    await ask("GET", f"/v2/app/blobs/{digest}", headers={"Range": "bytes=0-99"})
    await ask("GET", f"/v2/app/blobs/{digest}")
    traffic = ask.registry.traffic
    assert traffic.requests == {("POST", "uploads"): 1, ("GET", "blob"): 2}
    assert (traffic.uploads[digest], traffic.blob_bytes_in[digest]) == (1, len(BLOB))
    assert (traffic.pulls[digest], traffic.blob_bytes_out[digest]) == (2, len(BLOB) + 100)


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": aiohttp.encode_basic_auth(user, password)}


async def test_a_request_needs_the_right_password(tmp_path: Path):
    registry = BuiltinRegistry(tmp_path, clock=SystemClock(), credentials=Credentials("ci", "geh:eim\u00fc"))
    await registry.start()
    async with aiohttp.ClientSession() as session:
        ask = Client(registry, session)
        refused = await ask("GET", "/v2/")
        wrong = await ask("GET", "/v2/", headers=basic("ci", "x"))
        garbled = await ask("GET", "/v2/", headers={"Authorization": "Basic !!!"})
        right = await ask("GET", "/v2/", headers=basic("ci", "geh:eim\u00fc"))
    await registry.stop()
    assert [refused.status, wrong.status, garbled.status, right.status] == [401, 401, 401, 200]
    assert refused.headers["WWW-Authenticate"].startswith("Basic ")
    assert "geh" not in repr(Credentials("ci", "geheim"))


async def test_acknowledged_content_survives_a_restart(ask: Client, tmp_path: Path):
    digest = await ask.push_image("app", "1.0")
    where = await ask.begin()
    await ask("PATCH", where, data=BLOB)
    port = int(ask.registry.url.rpartition(":")[2])
    await ask.registry.stop()
    await ask.registry.start(port=port)
    assert (await ask("HEAD", "/v2/app/manifests/1.0")).headers["Docker-Content-Digest"] == digest
    assert (await ask("GET", where)).code == "BLOB_UPLOAD_UNKNOWN"
    assert list((tmp_path / "registry" / "incoming").iterdir()) == []


async def test_many_uploads_of_one_blob_at_once(ask: Client):
    names = [f"app-{number}" for number in range(20)]
    digests = await asyncio.gather(*(ask.push_blob(name, BLOB * 1000) for name in names))
    got = await asyncio.gather(*(ask("GET", f"/v2/{name}/blobs/{digests[0]}") for name in names))
    assert {hashlib.sha256(answer.body).hexdigest() for answer in got} == {digests[0].removeprefix("sha256:")}


@pytest.mark.real("skopeo")
async def test_skopeo_pushes_and_pulls(ask: Client, tmp_path: Path):
    digest = await ask.push_image("app", "1.0")
    host = ask.registry.url.removeprefix("http://")
    await _skopeo(
        "copy",
        "--all",
        "--preserve-digests",
        f"docker://{host}/app:1.0",
        f"oci:{tmp_path}/copy:1.0",
        "--src-tls-verify=false",
    )
    await _skopeo(
        "copy",
        "--all",
        "--preserve-digests",
        f"oci:{tmp_path}/copy:1.0",
        f"docker://{host}/again/app:2",
        "--dest-tls-verify=false",
    )
    head = await ask("HEAD", "/v2/again/app/manifests/2")
    assert head.headers["Docker-Content-Digest"] == digest


async def _skopeo(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "skopeo",
        "--insecure-policy",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
