"""Manifests of the built-in registry: byte for byte, after their parts, by digest and tag."""

import json

import pytest

from mesh.registry.port import MAX_MANIFEST, digest_of
from tests.support.builtin_client import OCI_INDEX, OCI_MANIFEST, Client


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_a_manifest_is_stored_byte_for_byte(ask: Client, algorithm: str):
    body = json.dumps(await ask.image("app"), indent=3).encode() + b"\n"
    digest = digest_of(body, algorithm)
    headers = {"Content-Type": OCI_MANIFEST}
    put = await ask("PUT", f"/v2/app/manifests/{digest}", data=body, headers=headers)
    assert (put.status, put.headers["Docker-Content-Digest"]) == (201, digest)
    got = await ask("GET", put.headers["Location"])
    assert (got.body, got.headers["Content-Type"]) == (body, OCI_MANIFEST)


async def test_a_tag_names_the_last_manifest_put_under_it(ask: Client):
    first = await ask.push_image("app", "1.0")
    second = await ask.push_image("app", "1.0", annotations={"try": "2"})
    head = await ask("HEAD", "/v2/app/manifests/1.0")
    assert head.headers["Docker-Content-Digest"] == second != first
    assert (await ask("HEAD", f"/v2/app/manifests/{first}")).status == 200


async def test_one_request_may_set_several_tags(ask: Client):
    document = await ask.image("app")
    digest = digest_of(json.dumps(document).encode())
    put = await ask.put_manifest(f"/v2/app/manifests/{digest}?tag=1&tag=1.0", document)
    assert (put.status, put.headers["OCI-Tag"]) == (201, "1, 1.0")
    assert (await ask("GET", "/v2/app/tags/list")).json["tags"] == ["1", "1.0"]


async def test_a_manifest_is_refused_before_its_parts(ask: Client):
    document = await ask.image("elsewhere")
    answer = await ask.put_manifest("/v2/app/manifests/1.0", document)
    assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert (await ask("HEAD", "/v2/app/manifests/1.0")).status == 404


async def test_an_index_is_refused_before_its_children(ask: Client):
    child = {"mediaType": OCI_MANIFEST, "digest": digest_of(b"not there"), "size": 9}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}
    refused = await ask.put_manifest("/v2/app/manifests/1.0", index, OCI_INDEX)
    assert (refused.status, refused.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    child["digest"] = await ask.push_image("app", "child")
    assert (await ask.put_manifest("/v2/app/manifests/1.0", index, OCI_INDEX)).status == 201


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"no json", OCI_MANIFEST),
        (b"[]", OCI_MANIFEST),
        (b'{"mediaType": "application/vnd.oci.image.index.v1+json"}', OCI_MANIFEST),
        (b'{"config": {}, "layers": [], "manifests": []}', OCI_MANIFEST),
        (b'{"layers": [{"digest": "sha256:short"}]}', OCI_MANIFEST),
        (b'{"layers": 7}', OCI_MANIFEST),
        (b'{"subject": "text"}', OCI_MANIFEST),
        (b"{}", "no media type"),
    ],
)
async def test_an_invalid_manifest_is_refused_by_the_builtin_registry(
    ask: Client, body: bytes, content_type: str
):
    headers = {"Content-Type": content_type}
    answer = await ask("PUT", "/v2/app/manifests/1.0", data=body, headers=headers)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")


async def test_a_manifest_under_another_digest_is_refused(ask: Client):
    wrong = digest_of(b"other")
    answer = await ask.put_manifest(f"/v2/app/manifests/{wrong}", await ask.image("app"))
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


async def test_a_manifest_over_the_limit_is_refused(ask: Client):
    document = await ask.image("app")
    room = MAX_MANIFEST - len(json.dumps(document | {"annotations": {"a": ""}}))
    largest = document | {"annotations": {"a": "x" * room}}
    assert (await ask.put_manifest("/v2/app/manifests/1", largest)).status == 201
    too_large = document | {"annotations": {"a": "x" * (room + 1)}}
    assert (await ask.put_manifest("/v2/app/manifests/2", too_large)).status == 413


async def test_deleting_a_tag_leaves_the_manifest(ask: Client):
    digest = await ask.push_image("app", "1.0")
    assert (await ask("DELETE", "/v2/app/manifests/1.0")).status == 202
    assert (await ask("HEAD", "/v2/app/manifests/1.0")).status == 404
    assert (await ask("HEAD", f"/v2/app/manifests/{digest}")).status == 200
    assert (await ask("DELETE", "/v2/app/manifests/1.0")).code == "MANIFEST_UNKNOWN"


async def test_deleting_a_manifest_deletes_its_tags(ask: Client):
    digest = await ask.push_image("app", "1.0")
    other = await ask.push_image("app", "2.0", annotations={"a": "b"})
    assert (await ask("DELETE", f"/v2/app/manifests/{digest}")).status == 202
    assert (await ask("HEAD", "/v2/app/manifests/1.0")).status == 404
    assert (await ask("GET", "/v2/app/tags/list")).json["tags"] == ["2.0"]
    assert (await ask("HEAD", f"/v2/app/manifests/{other}")).status == 200
