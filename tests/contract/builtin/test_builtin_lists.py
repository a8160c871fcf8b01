"""Tags, catalog and referrers of the built-in registry."""

from mesh.registry.port import digest_of
from tests.support.builtin_client import BLOB, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Client


async def test_tags_are_paginated_in_lexical_order(ask: Client):
    for tag in ("b", "a", "C", "10", "9"):
        await ask.push_image("app", tag)
    found, where, pages = [], "/v2/app/tags/list?n=2", 0
    while where:
        answer = await ask("GET", where)
        found += answer.json["tags"]
        where = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
        pages += 1
    assert (found, pages) == (["10", "9", "C", "a", "b"], 3)


async def test_edge_cases_of_pages(ask: Client):
    await ask.push_image("app", "1")
    none = await ask("GET", "/v2/app/tags/list?n=0")
    after = await ask("GET", "/v2/app/tags/list?last=1")
    whole = await ask("GET", "/v2/app/tags/list?n=1")
    assert [none.json["tags"], after.json["tags"], whole.json["tags"]] == [[], [], ["1"]]
    assert not any("Link" in answer.headers for answer in (none, after, whole))
    for wrong in ("-1", "x", "1" * 30, "\u00b2"):
        assert (await ask("GET", "/v2/app/tags/list", params={"n": wrong})).status == 400


async def test_the_catalog_lists_repositories(ask: Client):
    for repository in ("b", "a/b/c", "a"):
        await ask.push_blob(repository, BLOB)
    first = await ask("GET", "/v2/_catalog?n=2")
    assert first.json["repositories"] == ["a", "a/b/c"]
    assert first.headers["Link"] == '</v2/_catalog?n=2&last=a/b/c>; rel="next"'
    assert (await ask("GET", "/v2/_catalog?last=a/b/c")).json["repositories"] == ["b"]


async def test_referrers_are_listed_and_filtered(ask: Client):
    subject = digest_of(b"comes later")
    about = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 11}
    document = await ask.image("app") | {"subject": about, "annotations": {"k": "v"}}
    signature = document | {"artifactType": "application/vnd.example.signature"}
    put = await ask.put_manifest("/v2/app/manifests/sig", signature)
    plain = await ask.put_manifest("/v2/app/manifests/plain", document)
    assert put.headers["OCI-Subject"] == plain.headers["OCI-Subject"] == subject

    both = await ask("GET", f"/v2/app/referrers/{subject}")
    assert both.headers["Content-Type"] == OCI_INDEX
    assert {entry["artifactType"] for entry in both.json["manifests"]} == {
        "application/vnd.example.signature",
        OCI_CONFIG,
    }
    one = await ask("GET", f"/v2/app/referrers/{subject}?artifactType=application/vnd.example.signature")
    assert one.headers["OCI-Filters-Applied"] == "artifactType"
    assert [(e["digest"], e["annotations"]) for e in one.json["manifests"]] == [
        (put.headers["Docker-Content-Digest"], {"k": "v"})
    ]


async def test_a_deleted_manifest_is_not_a_referrer(ask: Client):
    subject = digest_of(b"subject")
    about = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 7}
    digest = await ask.push_image("app", "sig", subject=about)
    assert len((await ask("GET", f"/v2/app/referrers/{subject}")).json["manifests"]) == 1
    await ask("DELETE", f"/v2/app/manifests/{digest}")
    assert (await ask("GET", f"/v2/app/referrers/{subject}")).json["manifests"] == []
