"""Requests of clients are parsed into names; the rest is refused with the error codes of the specification."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.gateway.request import Endpoint, ErrorResponse, Pull, mirrored_host, not_found, parse
from schemas.names import Digest, Repository, Tag

DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("path", "endpoint", "reference"),
    [
        ("", Endpoint.BASE, None),
        ("team/app/manifests/v1", Endpoint.MANIFEST, "v1"),
        (f"team/app/manifests/{DIGEST}", Endpoint.MANIFEST, DIGEST),
        (f"team/app/blobs/{DIGEST}", Endpoint.BLOB, DIGEST),
        (f"team/app/referrers/{DIGEST}", Endpoint.REFERRERS, DIGEST),
        ("team/app/tags/list", Endpoint.TAGS, None),
    ],
)
def test_a_pull_is_forwarded_with_its_path(path: str, endpoint: Endpoint, reference: str | None) -> None:
    pull = parse("GET", path, "")
    assert (pull.endpoint, pull.reference, pull.path) == (endpoint, reference, path)


def test_a_repository_may_be_named_like_the_words_of_the_path() -> None:
    pull = parse("HEAD", "manifests/blobs/tags/list", "")
    assert (pull.repository, pull.endpoint) == ("manifests/blobs", Endpoint.TAGS)
    assert parse("GET", "tags/list/manifests/blobs", "").repository == "tags/list"


def test_pages_and_filters_are_forwarded_and_the_mirrored_host_is_not() -> None:
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
def test_any_request_is_refused_or_made_of_parsed_names(method: str, path: str, query: str) -> None:
    pull = refusal = None
    try:
        pull = parse(method, path, query)
    except ErrorResponse as error:
        refusal = error
    if pull is None:
        assert refusal is not None
        assert 400 <= refusal.status < 500
        return
    assert method in ("GET", "HEAD")
    assert pull.repository is None or Repository(pull.repository)
    assert pull.path == path
    assert pull.query.isascii()


NAMES = st.from_regex(Repository.pattern, fullmatch=True).filter(lambda it: len(it) <= 255)


@settings(max_examples=30)  # matching texts are slow to draw
@given(NAMES, st.from_regex(Tag.pattern, fullmatch=True))
def test_every_image_can_be_pulled(name: str, tag: str) -> None:
    assert parse("GET", f"{name}/manifests/{tag}", "") == Pull(
        "GET", Endpoint.MANIFEST, Repository(name), Tag(tag)
    )


@pytest.mark.parametrize(
    ("pull", "code"),
    [
        (Pull("GET", Endpoint.BLOB, Repository("a"), Digest(DIGEST)), "BLOB_UNKNOWN"),
        (Pull("GET", Endpoint.MANIFEST, Repository("a"), Tag("b")), "MANIFEST_UNKNOWN"),
        (Pull("GET", Endpoint.TAGS, Repository("a")), "NAME_UNKNOWN"),
    ],
)
def test_the_error_code_of_what_no_place_has(pull: Pull, code: str) -> None:
    assert (not_found(pull).status, not_found(pull).code) == (404, code)


def test_what_no_place_has_is_named_as_clients_write_it() -> None:
    assert "has a/b:v1" in str(not_found(parse("GET", "a/b/manifests/v1", "")))
    assert f"has a/b@{DIGEST}" in str(not_found(parse("GET", f"a/b/manifests/{DIGEST}", "")))
