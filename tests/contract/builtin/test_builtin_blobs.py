"""Blobs of the built-in registry: whole, by range, and only in the repositories that have them."""

import pytest

from tests.support.builtin_client import BLOB, Client


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("body", [BLOB, b""])
async def test_a_blob_is_returned_unchanged(ask: Client, algorithm: str, body: bytes):
    digest = await ask.push_blob("team/app", body, algorithm)
    head = await ask("HEAD", f"/v2/team/app/blobs/{digest}")
    got = await ask("GET", f"/v2/team/app/blobs/{digest}")
    assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(body)), b"")
    assert (got.status, got.body, got.headers["Docker-Content-Digest"]) == (200, body, digest)


@pytest.mark.parametrize(
    ("asked", "expected", "content_range"),
    [
        ("bytes=10-19", BLOB[10:20], "bytes 10-19/1000"),
        ("bytes=990-", BLOB[990:], "bytes 990-999/1000"),
        ("bytes=-5", BLOB[-5:], "bytes 995-999/1000"),
        ("bytes=990-5000", BLOB[990:], "bytes 990-999/1000"),
        ("bytes=0-", BLOB, "bytes 0-999/1000"),
    ],
)
async def test_a_range_request_returns_that_range(
    ask: Client, asked: str, expected: bytes, content_range: str
):
    digest = await ask.push_blob("app", BLOB)
    answer = await ask("GET", f"/v2/app/blobs/{digest}", headers={"Range": asked})
    assert (answer.status, answer.body) == (206, expected)
    assert answer.headers["Content-Range"] == content_range


@pytest.mark.parametrize("asked", ["bytes=1000-", "bytes=5-1", "bytes=5000-6000", "bytes=x"])
async def test_a_range_outside_the_blob_is_refused(ask: Client, asked: str):
    digest = await ask.push_blob("app", BLOB)
    answer = await ask("GET", f"/v2/app/blobs/{digest}", headers={"Range": asked})
    assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */1000")


@pytest.mark.parametrize("asked", ["lines=1-2", "bytes=0-1,5-6"])
async def test_an_unsupported_range_returns_the_whole_blob(ask: Client, asked: str):
    digest = await ask.push_blob("app", BLOB)
    answer = await ask("GET", f"/v2/app/blobs/{digest}", headers={"Range": asked})
    assert (answer.status, answer.body) == (200, BLOB)
    assert "Content-Range" not in answer.headers


async def test_a_blob_is_only_in_the_repository_it_was_pushed_to(ask: Client):
    digest = await ask.push_blob("one", BLOB)
    answer = await ask("GET", f"/v2/two/blobs/{digest}")
    assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")


async def test_a_blob_is_mounted_from_a_repository_that_has_it(ask: Client):
    digest = await ask.push_blob("one", BLOB)
    answer = await ask("POST", f"/v2/two/blobs/uploads/?mount={digest}&from=one")
    assert (answer.status, answer.headers["Location"]) == (201, f"/v2/two/blobs/{digest}")
    assert (await ask("GET", answer.headers["Location"])).body == BLOB
    assert ask.registry.traffic.mounts[digest] == 1


@pytest.mark.parametrize("query", ["mount={}&from=empty", "mount={}"])
async def test_an_impossible_mount_opens_an_upload(ask: Client, query: str):
    digest = await ask.push_blob("one", BLOB)
    answer = await ask("POST", "/v2/two/blobs/uploads/?" + query.format(digest))
    assert answer.status == 202
    put = await ask("PUT", answer.headers["Location"], params={"digest": digest}, data=BLOB)
    assert put.status == 201


async def test_a_blob_is_deleted_from_one_repository_only(ask: Client):
    digest = await ask.push_blob("one", BLOB)
    await ask.push_blob("two", BLOB)
    assert (await ask("DELETE", f"/v2/one/blobs/{digest}")).status == 202
    assert (await ask("HEAD", f"/v2/one/blobs/{digest}")).status == 404
    assert (await ask("DELETE", f"/v2/one/blobs/{digest}")).status == 404
    assert (await ask("HEAD", f"/v2/two/blobs/{digest}")).status == 200
