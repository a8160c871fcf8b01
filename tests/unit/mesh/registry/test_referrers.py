"""The tags that referrers are found by, and merging their lists."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import ContentRefused
from mesh.registry.port import MAX_MANIFEST, Manifest, digest_of
from mesh.registry.referrers import (
    cosign_tags,
    fallback_tag,
    is_fallback,
    merged,
    read_index,
    read_subject,
    subject_named,
)
from schemas.completions import Side
from tests.support import attached, images
from tests.support.attached import SBOM, attachment

IMAGE = images.image(layers=[b"app"])
SUBJECT = IMAGE.digest
HEX = SUBJECT.partition(":")[2]
ATTACHED = [attachment(IMAGE.manifest, SBOM, bytes([number])).manifest for number in range(6)]
some = st.lists(st.sampled_from(ATTACHED), unique=True)


def test_tags_of_both_schemes_name_their_subject() -> None:
    tags = cosign_tags(SUBJECT)
    assert (fallback_tag(SUBJECT), *tags) == tuple(
        f"sha256-{HEX}{end}" for end in ("", ".sig", ".att", ".sbom")
    )
    assert {subject_named(tag) for tag in (fallback_tag(SUBJECT), *tags)} == {SUBJECT}
    assert is_fallback(fallback_tag(SUBJECT))
    assert not any(is_fallback(tag) for tag in tags)


@pytest.mark.parametrize(
    "tag",
    [
        "v1",
        "sha256",
        f"sha256-{HEX[1:]}",
        f"sha256-{HEX}.txt",
        f"sha256-{HEX.upper()}.sig",
        f"x-sha256-{HEX}",
    ],
)
def test_other_tags_have_no_subject(tag: str) -> None:
    assert subject_named(tag) is None
    assert not is_fallback(tag)


def test_a_longer_digest_is_truncated_and_has_no_cosign_tags() -> None:
    digest = digest_of(b"x", "sha512")
    assert fallback_tag(digest) == f"sha512-{digest.partition(':')[2][:64]}"
    assert cosign_tags(digest) == ()


@given(some, some, some)
def test_merging_lists_is_commutative_and_idempotent(
    first: list[Manifest], second: list[Manifest], third: list[Manifest]
) -> None:
    index = None
    for added in (first, second, third, second):
        index = merged(index, added) or index
    wanted = {it.digest for it in (*first, *second, *third)}
    found = read_index(index.body, Side.DESTINATION) if index else []
    assert [it.descriptor.digest for it in found] == list(
        dict.fromkeys(it.digest for it in (*first, *second, *third))
    )
    assert {it.descriptor.digest for it in found} == wanted
    assert merged(index, [it for it in ATTACHED if it.digest in wanted]) is None


def test_other_content_of_a_list_is_kept() -> None:
    document = {
        "schemaVersion": 2,
        "annotations": {"by": "others"},
        "manifests": [{"digest": "odd", "more": 1}],
    }
    body = json.dumps(document).encode()
    index = merged(Manifest(attached.OCI_INDEX, digest_of(body), body), ATTACHED[:1])
    assert index is not None
    assert index.digest == digest_of(index.body)
    entries = [*document["manifests"], attached.entry(ATTACHED[0])]  # type: ignore[misc]
    assert json.loads(index.body) == {**document, "manifests": entries}


def test_a_list_over_the_limit_is_refused() -> None:
    body = json.dumps({"manifests": [], "annotations": {"x": "x" * MAX_MANIFEST}}).encode()
    with pytest.raises(ContentRefused):
        merged(Manifest(attached.OCI_INDEX, digest_of(body), body), ATTACHED)


@pytest.mark.parametrize("subject", ['"text"', "7", "[1]", '{"digest": "no"}', '{"size": 1}'])
def test_an_invalid_subject_is_refused(subject: str) -> None:
    body = f'{{"subject": {subject}}}'.encode()
    with pytest.raises(ContentRefused):
        read_subject(Manifest(IMAGE.manifest.media_type, digest_of(body), body))
    assert read_subject(IMAGE.manifest) is None
    assert read_subject(ATTACHED[0]) == SUBJECT
