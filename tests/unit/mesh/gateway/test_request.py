"""What is taken from a client is parsed names and nothing else; the rest is refused in the specification's words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.gateway.request import Asked, Refused, What, mirrored_host, parse, unknown
from schemas.names import Digest, Repository, Tag

DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("path", "what", "reference"),
    [
        ("", What.BASE, None),
        ("team/app/manifests/v1", What.MANIFEST, "v1"),
        (f"team/app/manifests/{DIGEST}", What.MANIFEST, DIGEST),
        (f"team/app/blobs/{DIGEST}", What.BLOB, DIGEST),
        (f"team/app/referrers/{DIGEST}", What.REFERRERS, DIGEST),
        ("team/app/tags/list", What.TAGS, None),
    ],
)
def test_what_reads_is_written_as_it_came(path: str, what: What, reference: str | None) -> None:
    asked = parse("GET", path, "")
    assert (asked.what, asked.reference, asked.path) == (what, reference, path)


def test_a_repository_may_be_named_like_the_words_of_the_path() -> None:
    asked = parse("HEAD", "manifests/blobs/tags/list", "")
    assert (asked.repository, asked.what) == ("manifests/blobs", What.TAGS)
    assert parse("GET", "tags/list/manifests/blobs", "").repository == "tags/list"


def test_pages_and_filters_go_on_and_what_is_for_the_gateway_does_not() -> None:
    assert parse("GET", "a/tags/list", "n=2&last=v%2F1&ns=hub.example.com").query == "n=2&last=v%2F1"
    assert parse("GET", f"a/referrers/{DIGEST}", "artifactType=a%2Fb").query == "artifactType=a%2Fb"
    assert parse("GET", "a/manifests/v1", "x=1").query == ""
    assert mirrored_host("n=2&ns=hub.example.com%3A5000") == "hub.example.com:5000"
    assert mirrored_host("n=2") is None


def test_only_a_digest_is_the_same_everywhere() -> None:
    assert parse("GET", "a/manifests/v1", "").is_by_name
    assert parse("GET", "a/tags/list", "").is_by_name
    assert not parse("GET", f"a/manifests/{DIGEST}", "").is_by_name


@given(st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "get", "X"]), st.text(), st.text())
def test_whatever_comes_is_refused_or_made_of_parsed_names(method: str, path: str, query: str) -> None:
    asked = refusal = None
    try:
        asked = parse(method, path, query)
    except Refused as refused:
        refusal = refused
    if asked is None:
        assert refusal is not None
        assert 400 <= refusal.status < 500
        return
    assert method in ("GET", "HEAD")
    assert asked.repository is None or Repository(asked.repository)
    assert asked.path == path
    assert asked.query.isascii()


NAMES = st.from_regex(Repository.pattern, fullmatch=True).filter(lambda it: len(it) <= 255)


@settings(max_examples=30)  # matching texts are slow to draw
@given(NAMES, st.from_regex(Tag.pattern, fullmatch=True))
def test_every_image_can_be_asked_for(name: str, tag: str) -> None:
    assert parse("GET", f"{name}/manifests/{tag}", "") == Asked(
        "GET", What.MANIFEST, Repository(name), Tag(tag)
    )


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (Asked("GET", What.BLOB, Repository("a"), Digest(DIGEST)), "BLOB_UNKNOWN"),
        (Asked("GET", What.MANIFEST, Repository("a"), Tag("b")), "MANIFEST_UNKNOWN"),
        (Asked("GET", What.TAGS, Repository("a")), "NAME_UNKNOWN"),
    ],
)
def test_what_nobody_has_is_unknown_by_its_kind(asked: Asked, code: str) -> None:
    assert (unknown(asked).status, unknown(asked).code) == (404, code)


def test_what_nobody_has_is_named_as_clients_write_it() -> None:
    assert "has a/b:v1" in str(unknown(parse("GET", "a/b/manifests/v1", "")))
    assert f"has a/b@{DIGEST}" in str(unknown(parse("GET", f"a/b/manifests/{DIGEST}", "")))
