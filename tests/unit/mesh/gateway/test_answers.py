"""What places answer and what of it reaches a client: outcomes, headers and byte ranges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from mesh.errors import Rejected
from mesh.gateway import headers
from mesh.gateway.byte_ranges import ByteRange, byte_range_of, to_skip
from mesh.gateway.outcome import Inquiry, Outcome, may_ask, outcome_of
from mesh.gateway.search import _content_digest
from mesh.registry.challenges import Challenge, choose
from schemas.completions import Side
from schemas.names import Account, PlaceName

PAGE = URL("http://10.0.0.1:5000/v2/a/tags/list?n=2")


def given_headers(*pairs: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(pairs))


@pytest.mark.parametrize(
    ("status", "found"),
    [
        (200, Outcome.SERVED), (206, Outcome.SERVED), (304, Outcome.SERVED), (307, Outcome.SERVED),
        (416, Outcome.SERVED), (401, Outcome.UNAUTHORIZED), (403, Outcome.DENIED), (404, Outcome.ABSENT),
        (408, Outcome.UNAVAILABLE), (429, Outcome.UNAVAILABLE), (500, Outcome.UNAVAILABLE), (599, Outcome.UNAVAILABLE),
    ],
)  # fmt: skip
def test_the_outcome_of_a_status(status: int, found: Outcome) -> None:
    assert outcome_of(status) is found


def inquiry(
    *said: Outcome, home: Outcome | None = None, by_name: bool = True, authorized: bool = True
) -> Inquiry:
    """The outcomes of replicas, and of the instance itself if `home`."""
    made = Inquiry(by_name, authorized)
    for one in said:
        made.record(one, is_authoritative=False)
    if home is not None:
        made.record(home, is_authoritative=True)
    return made


SAID = st.sampled_from([Outcome.ABSENT, Outcome.UNAUTHORIZED, Outcome.DENIED, Outcome.UNAVAILABLE])


@given(st.lists(SAID, max_size=4), st.none() | SAID, st.booleans(), st.booleans())
def test_another_account_is_asked_only_after_no_refusal_and_for_no_doubtful_name(
    said: list[Outcome], home: Outcome | None, by_name: bool, authorized: bool
) -> None:
    made = inquiry(*said, home=home, by_name=by_name, authorized=authorized)
    if home is Outcome.ABSENT:
        assert made.allows_next(same_account=False)
        return
    refused = {Outcome.UNAUTHORIZED, Outcome.DENIED} & {*said, home}
    assert made.allows_next(same_account=False) == (not refused and not by_name)


@given(
    st.lists(st.tuples(st.sampled_from(["game", "team"]), st.lists(SAID, max_size=3), SAID), max_size=4),
    st.booleans(),
)
def test_no_later_instance_serves_what_one_of_another_account_refused(
    said: list[tuple[str, list[Outcome], Outcome]], by_name: bool
) -> None:
    previous = [
        (Account(account), inquiry(*near, home=home, by_name=by_name)) for account, near, home in said
    ]
    refused = {account for account, one in previous if one.refused}
    silent = {account for account, one in previous if by_name and not one.is_known_absent}
    for account in (Account("game"), Account("team")):
        if (refused | silent) - {account}:
            assert not may_ask(account, previous)
    if all(home is Outcome.ABSENT for _, _, home in said):
        assert may_ask(Account("third"), previous)


def test_within_an_account_a_401_is_not_final_and_a_403_is() -> None:
    assert inquiry(Outcome.UNAUTHORIZED).asks_next_place
    assert not inquiry(Outcome.UNAUTHORIZED, authorized=False).asks_next_place
    assert not inquiry(Outcome.DENIED).asks_next_place
    assert inquiry(home=Outcome.UNAUTHORIZED).allows_next(same_account=True)
    assert not inquiry(home=Outcome.UNAUTHORIZED, authorized=False).allows_next(same_account=True)
    assert not inquiry(home=Outcome.DENIED).allows_next(same_account=True)
    assert inquiry(home=Outcome.UNAVAILABLE).allows_next(same_account=True)


def test_only_listed_headers_are_forwarded() -> None:
    forwarded = headers.for_place(
        given_headers(
            ("accept", "a/b"), ("Accept", "c/d"), ("Cookie", "x"), ("Host", "h"), ("range", "bytes=1-2")
        )
    )
    assert forwarded == {"Accept": "a/b, c/d", "Range": "bytes=1-2"}
    answer = given_headers(
        ("ETag", "e"),
        ("Set-Cookie", "x"),
        ("Location", "http://inner/x"),
        ("Server", "s"),
        ("Link", "</v2/x>"),
    )
    assert headers.for_client(200, answer, PAGE) == {"ETag": "e"} | headers.VERSION
    assert headers.for_client(307, answer, PAGE)["Location"] == "http://inner/x"


@pytest.mark.parametrize(
    ("link", "passed"),
    [
        ('</v2/a/tags/list?n=2&last=b>; rel="next"', '</v2/a/tags/list?n=2&last=b>; rel="next"'),
        ("<http://10.0.0.1:5000/v2/a/tags/list?last=b>; rel=next", '</v2/a/tags/list?last=b>; rel="next"'),
        ('<http://10.0.0.2/v2/a/tags/list?last=b>; rel="next"', None),
        ('<ftp://x>; rel="next"', None),
    ],
)
def test_the_next_page_leads_to_the_gateway(link: str, passed: str | None) -> None:
    assert headers.for_client(200, given_headers(("Link", link)), PAGE).get("Link") == passed


def test_challenges_are_rewritten_and_other_schemes_left_out() -> None:
    said = given_headers(
        (
            "WWW-Authenticate",
            'Bearer realm="http://inner/token",service="a \\"b\\"",scope="repository:x:pull"',
        ),
        ("WWW-Authenticate", 'Negotiate, Basic realm="users"'),
    )
    passed, trusted = headers.challenge(
        said, headers.token_url("https://hub", PlaceName("cn@x")), lambda _: None
    )
    assert passed.getall("WWW-Authenticate") == [
        'Bearer realm="https://hub/token/cn%40x",service="a \\"b\\"",scope="repository:x:pull"', 'Basic realm="users"',
    ]  # fmt: skip
    assert [it.parameters["realm"] for it in trusted] == ["http://inner/token"]

    def refuse(_: Challenge) -> None:
        raise Rejected("not its own", side=Side.SOURCE)

    passed, trusted = headers.challenge(said, "https://hub/token/x", refuse)
    assert (passed.getall("WWW-Authenticate"), trusted) == (['Basic realm="users"'], [])


@given(st.text(), st.text())
def test_a_rewritten_challenge_is_one_header_with_the_same_parameters(service: str, scope: str) -> None:
    quoted = [text.replace("\\", "\\\\").replace('"', '\\"') for text in (service, scope)]
    said = given_headers(
        ("WWW-Authenticate", f'Bearer realm="http://x/t",service="{quoted[0]}",scope="{quoted[1]}"')
    )
    passed, _ = headers.challenge(said, "http://hub/token/x", lambda _: None)
    header = passed["WWW-Authenticate"]
    assert header.isprintable()
    found = choose([header])
    assert found is not None
    assert found.parameters["realm"] == "http://hub/token/x"
    assert found.parameters["service"] == "".join(it for it in service if it.isprintable())


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_blob_resumed_from_several_places_is_the_blob(blob: bytes, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(blob) - 1))
    last = data.draw(st.integers(first, len(blob) - 1))
    left, got = ByteRange(first, last), b""
    while not left.is_empty:
        if data.draw(st.booleans()):
            status, sent = 206, blob[left.first : last + 1]
            said = {"Content-Range": f"bytes {left.first}-{last}/{len(blob)}"}
        else:
            status, sent, said = 200, blob, {"Content-Length": str(len(blob))}
        skip = to_skip(left, status, said)
        assert skip is not None
        some = sent[skip:][: data.draw(st.integers(1, left.last - left.first + 1))]  # type: ignore[operator]
        got, left = got + some, left.after(len(some))
    assert got == blob[first : last + 1]


def test_a_response_with_other_bytes_is_not_resumed_with() -> None:
    left = ByteRange(10, 99)
    assert left.header == "bytes=10-99"
    assert ByteRange(10, None).header == "bytes=10-"
    assert to_skip(left, 206, {"Content-Range": "bytes 20-99/100"}) is None
    assert to_skip(left, 206, {"Content-Range": "bytes 10-50/100"}) is None
    assert to_skip(left, 200, {"Content-Length": "50"}) is None
    assert to_skip(left, 307, {}) is None
    assert to_skip(left, 206, {"Content-Type": "multipart/byteranges"}) is None
    assert byte_range_of(200, {}) == ByteRange(0, None)


def test_a_compressed_response_is_not_joined_with_a_plain_one() -> None:
    packed = {"Content-Length": "100", "Content-Encoding": "gzip"}
    assert byte_range_of(200, packed) is None
    assert to_skip(ByteRange(10, 99), 206, {"Content-Range": "bytes 10-99/100", **packed}) is None
    assert to_skip(ByteRange(10, 99), 200, {"Content-Length": "100", "Content-Encoding": "identity"}) == 10


@pytest.mark.parametrize(
    ("media_type", "digest", "found"),
    [
        ("application/vnd.oci.image.manifest.v1+json", "sha256:" + "a" * 64, "sha256:" + "a" * 64),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", "sha256:" + "a" * 64, None),
        ("application/vnd.oci.image.manifest.v1+json", "blake3:" + "a" * 64, None),
        ("application/vnd.oci.image.manifest.v1+json", "", None),
    ],
)
def test_by_what_digest_a_manifest_is_checked(media_type: str, digest: str, found: str | None) -> None:
    assert _content_digest({"Content-Type": media_type, "Docker-Content-Digest": digest}) == found
