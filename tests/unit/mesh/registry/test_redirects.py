"""The URLs in answers."""

import pytest
from yarl import URL

from mesh.errors import Rejected
from mesh.registry import redirects
from schemas.completions import Side

BASE = URL("https://registry.example/v2/app/blobs/uploads/")


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/v2/x?_state=a%2Fb%3D%3D", "https://registry.example/v2/x?_state=a%2Fb%3D%3D"),
        ("0123?x", "https://registry.example/v2/app/blobs/uploads/0123?x"),
        ("https://other.example:8443/x#part", "https://other.example:8443/x"),
        ("//other.example/x", "https://other.example/x"),
        ("https://s3.example/b?sig=a+b%2B%20c&e=~", "https://s3.example/b?sig=a+b%2B%20c&e=~"),
    ],
)
def test_a_location_is_kept_byte_for_byte(location: str, url: str):
    assert str(redirects.resolve(BASE, location, side=Side.SOURCE)) == url


@pytest.mark.parametrize(
    "location",
    [
        "",
        "http://registry.example/x",
        "HTTP://other.example/x",
        "ftp://other.example/x",
        "javascript:alert(1)",
        "https://anna:secret@other.example/",
        "https://anna@other.example/",
        "https://other.example:x/",
        "https://other.example:99999/",
        "https://[::1/",
        "/with space",
        "/with\r\nHeader: x",
        "/\u00e4",
        "/" + "x" * 9000,
    ],
)
def test_an_invalid_location_or_one_without_tls_is_refused(location: str):
    with pytest.raises(Rejected) as caught:
        redirects.resolve(BASE, location, side=Side.DESTINATION)
    assert caught.value.side is Side.DESTINATION
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("https://r/u", "https://r/u?digest=sha256:ab"),
        ("https://r/u?", "https://r/u?digest=sha256:ab"),
        ("https://r/u?_state=a%2Fb%3D", "https://r/u?_state=a%2Fb%3D&digest=sha256:ab"),
    ],
)
def test_the_digest_is_added_to_the_query(location: str, url: str):
    assert str(redirects.with_digest(URL(location, encoded=True), "sha256:ab")) == url


@pytest.mark.parametrize(
    ("links", "following"),
    [
        ([], None),
        (["</v2/a/tags/list?last=b>; rel=next"], "https://r/v2/a/tags/list?last=b"),
        (['</x>; rel="prev", </y?z>; title=t; rel="next"'], "https://r/y?z"),
        (["</x>; rel=prev", "<?last=c>; REL=Next"], "https://r/v2/a/tags/list?last=c"),
        (["</x>; rel=nextish"], None),
        (["rel=next"], None),
    ],
)
def test_the_next_page(links: list[str], following: str | None):
    page = URL("https://r/v2/a/tags/list?n=5")
    found = redirects.next_page(page, links, side=Side.SOURCE)
    assert (None if found is None else str(found)) == following


@pytest.mark.parametrize(
    "target", ["https://elsewhere/x", "https://r:444/x", "http://r/x", "https://r/p?n=5"]
)
def test_the_next_page_must_be_a_different_one_of_the_same_host(target: str):
    with pytest.raises(Rejected):
        redirects.next_page(URL("https://r/p?n=5"), [f'<{target}>; rel="next"'], side=Side.SOURCE)
