"""Signatures of relays' requests: valid for what was signed, and for nothing else."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.blobs.relay.signing import (
    MeshKeys,
    RegionKeys,
    RelayRequest,
    headers_of,
    parse_keys,
    why_refused,
)
from mesh.errors import InvalidInput
from schemas.names import Digest, PlaceName, Region, Repository

NOW = datetime(2026, 11, 27, 8, tzinfo=UTC)
REGIONS = st.sampled_from(["oslo", "rome", "paris"]).map(Region)
REQUESTS = st.builds(
    RelayRequest,
    url=st.sampled_from(["https://relay.oslo.example", "http://10.0.0.5:8082"]),
    region=REGIONS,
    place=st.tuples(st.sampled_from(["game", "team"]), REGIONS).map("@".join).map(PlaceName),
    repository=st.sampled_from(["app", "team/app", "team/app/x"]).map(Repository),
    digest=st.sampled_from("01").map(lambda one: Digest(f"sha256:{one * 64}")),
    size=st.integers(0, 20),
    offset=st.integers(0, 20),
)
KEYS = MeshKeys("of the mesh")


@given(REQUESTS, st.integers(-290, 290))
def test_what_was_signed_is_accepted_for_some_minutes(request: RelayRequest, later: int) -> None:
    headers = headers_of(request, KEYS, NOW)
    assert why_refused(request, KEYS, headers, NOW + timedelta(seconds=later)) is None


@given(REQUESTS, REQUESTS)
def test_a_signature_is_good_for_its_own_request_alone(signed: RelayRequest, asked: RelayRequest) -> None:
    headers = headers_of(signed, KEYS, NOW)
    assert (why_refused(asked, KEYS, headers, NOW) is None) == (signed == asked)


@given(REQUESTS, st.one_of(st.integers(-5000, -302), st.integers(302, 5000)))
def test_an_old_signature_is_refused_with_how_far_the_clocks_differ(
    request: RelayRequest, later: int
) -> None:
    headers = headers_of(request, KEYS, NOW)
    refused = why_refused(request, KEYS, headers, NOW + timedelta(seconds=later))
    assert refused is not None
    assert str(later) in refused


@given(REQUESTS, st.text(), st.text())
def test_anything_else_is_refused(request: RelayRequest, signature: str, time: str) -> None:
    headers = {"Authorization": signature, "Regmesh-Time": time}
    assert why_refused(request, KEYS, headers, NOW) is not None
    assert why_refused(request, KEYS, {"Authorization": f"Regmesh-HMAC-SHA256 {signature}"}, NOW) is not None
    assert why_refused(request, None, headers_of(request, KEYS, NOW), NOW) is not None
    assert why_refused(request, MeshKeys("of another"), headers_of(request, KEYS, NOW), NOW) is not None


@given(REQUESTS)
def test_no_header_has_the_secret(request: RelayRequest) -> None:
    assert "of the mesh" not in str(headers_of(request, KEYS, NOW))


@given(REQUESTS, REGIONS, st.sets(REGIONS))
def test_the_keys_of_one_region_sign_as_no_other(
    request: RelayRequest, region: Region, asked: set[Region]
) -> None:
    """Such an agent signs what it asks the relays that it was given keys for. At its own relay it may sign anything."""
    keys = parse_keys(KEYS.keys_of_region(region, asked).text())
    refused = why_refused(request, KEYS, headers_of(request, keys, NOW), NOW)
    may_ask = request.region == region and request.serving in asked
    assert (refused is None) == (may_ask or request.serving == region)


@given(REQUESTS, REGIONS)
def test_the_keys_of_one_region_check_what_it_is_asked(request: RelayRequest, region: Region) -> None:
    keys = parse_keys(KEYS.keys_of_region(region, []).text())
    refused = why_refused(request, keys, headers_of(request, KEYS, NOW), NOW)
    assert (refused is None) == (request.serving == region)


@given(REGIONS, st.sets(REGIONS))
def test_the_keys_of_one_region_do_not_hold_the_secret(region: Region, asked: set[Region]) -> None:
    text = KEYS.keys_of_region(region, asked).text()
    assert text.isprintable()
    assert "of the mesh" not in text
    assert b"of the mesh".hex() not in text


@pytest.mark.parametrize(
    "text",
    ["", "oslo", "oslo=", "oslo=zz", f"oslo={'0' * 63}", f"oslo={'00' * 32} rome=00", "O=00", "oslo=é"],
)
def test_keys_that_were_not_copied_whole_are_refused_and_not_shown(text: str) -> None:
    with pytest.raises(InvalidInput, match="relay-keys") as refused:
        parse_keys(f"regmesh-relay-keys-1 {text}")
    assert "000" not in str(refused.value)


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(InvalidInput, match="anybody could sign"):
        parse_keys("")


def test_any_other_text_is_the_secret_of_the_mesh() -> None:
    assert isinstance(parse_keys("of the mesh"), MeshKeys)
    assert isinstance(parse_keys(KEYS.keys_of_region(Region("oslo"), []).text()), RegionKeys)
