"""Which manifests the built-in registry accepts, and what it reads of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.registry.builtin.manifest_parser import parse_manifest
from mesh.registry.port import digest_of

IMAGE = "application/vnd.oci.image.manifest.v1+json"
ONE, TWO, THREE = (digest_of(text) for text in (b"1", b"2", b"3"))


def part(digest: str, media_type: str = "application/vnd.oci.image.layer.v1.tar") -> str:
    return f'{{"mediaType": "{media_type}", "digest": "{digest}", "size": 1}}'


def test_parts_are_listed_once():
    body = f'{{"config": {part(ONE)}, "layers": [{part(TWO)}, {part(TWO)}, {part(ONE)}]}}'
    assert set(parse_manifest(body.encode(), IMAGE).parts) == {ONE, TWO}
    assert len(parse_manifest(body.encode(), IMAGE).parts) == 2


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
)
def test_foreign_layers_need_not_exist(media_type: str):
    body = f'{{"config": {part(ONE)}, "layers": [{part(TWO, media_type)}, {part(THREE)}]}}'
    assert set(parse_manifest(body.encode(), IMAGE).parts) == {ONE, THREE}


def test_a_subject_is_not_a_part():
    body = f'{{"manifests": [], "subject": {part(ONE)}}}'
    found = parse_manifest(body.encode(), IMAGE)
    assert (found.subject, found.parts) == (ONE, ())


def test_the_artifact_type_falls_back_to_that_of_the_config():
    config = part(ONE, "application/x.config")
    assert parse_manifest(f'{{"config": {config}}}'.encode(), IMAGE).artifact_type == "application/x.config"
    said = parse_manifest(f'{{"config": {config}, "artifactType": "application/x.said"}}'.encode(), IMAGE)
    assert said.descriptor(TWO, 5) == {
        "mediaType": IMAGE,
        "digest": TWO,
        "size": 5,
        "artifactType": "application/x.said",
    }


def test_the_media_type_may_be_in_the_header_or_the_body():
    assert parse_manifest(b"{}", IMAGE).media_type == IMAGE
    assert parse_manifest(f'{{"mediaType": "{IMAGE}"}}'.encode(), None).media_type == IMAGE
    with pytest.raises(ValueError, match="neither"):
        parse_manifest(b"{}", None)


def test_too_many_parts_are_refused():
    layers = ",".join([part(ONE)] * 10_001)
    with pytest.raises(ValueError, match="10000"):
        parse_manifest(f'{{"layers": [{layers}]}}'.encode(), IMAGE)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["config", "layers", "manifests", "blobs", "subject", "digest", "mediaType", "annotations"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(document=_json)
def test_invalid_manifests_are_value_errors(document: object):
    import orjson

    try:
        parse_manifest(orjson.dumps(document), IMAGE)
    except ValueError:
        return
    assert isinstance(document, dict)
