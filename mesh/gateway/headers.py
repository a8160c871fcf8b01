"""What of a request goes on to a place, and what of its answer comes back. Pure.

Nothing passes that is not named here: no cookies, no names of inner hosts. A Bearer challenge sends the client to this
gateway for its token, a list's next page to this gateway too.
"""

from collections.abc import Callable, Mapping
from urllib.parse import quote

from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from mesh.errors import Rejected
from mesh.registry import challenges, redirects
from mesh.registry.challenges import Challenge
from schemas.completions import Side
from schemas.names import PlaceName

Headers = CIMultiDictProxy[str]

_GOING = ("Authorization", "Accept", "Range", "If-Range", "If-None-Match", "If-Modified-Since")
_COMING = (
    "Content-Type", "Content-Length", "Content-Range", "Content-Encoding", "Accept-Ranges", "ETag", "Last-Modified",
    "Cache-Control", "Docker-Content-Digest", "OCI-Filters-Applied", "Retry-After",
)  # fmt: skip
VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}


def going(headers: Headers) -> dict[str, str]:
    return {name: ", ".join(headers.getall(name)) for name in _GOING if name in headers}


def coming(status: int, headers: Headers, page: URL) -> dict[str, str]:
    """Of an answer to `page`."""
    kept = {name: headers[name] for name in _COMING if name in headers}
    if 300 <= status < 400 and "Location" in headers:
        kept["Location"] = headers["Location"]
    return kept | VERSION | _next_page(headers, page)


def token_url(base: str, place: PlaceName) -> str:
    """Where clients of this gateway ask for tokens of a place."""
    return f"{base}/token/{quote(place, safe='')}"


def challenge(
    headers: Headers, realm: str, check: Callable[[Challenge], object]
) -> tuple[CIMultiDict[str], list[Challenge]]:
    """The `WWW-Authenticate` headers for a client, and the Bearer challenges that `check` takes (else `Rejected`).

    Other schemes than Basic and Bearer are left out: they are bound to the host that they were made for.
    """
    said, trusted = CIMultiDict[str](VERSION), list[Challenge]()
    for found in challenges.parse(headers.getall("WWW-Authenticate", [])):
        if found.scheme == "basic":
            said.add("WWW-Authenticate", _render("Basic", found.parameters))
        elif found.scheme == "bearer" and _is_taken(found, check):
            trusted.append(found)
            said.add("WWW-Authenticate", _render("Bearer", found.parameters | {"realm": realm}))
    return said, trusted


def _is_taken(found: Challenge, check: Callable[[Challenge], object]) -> bool:
    try:
        check(found)
    except Rejected:
        return False
    return True


def _render(scheme: str, parameters: Mapping[str, str]) -> str:
    return f"{scheme} " + ",".join(f'{name}="{_escaped(value)}"' for name, value in parameters.items())


def _escaped(value: str) -> str:
    plain = "".join(dead_letter for dead_letter in value if dead_letter.isprintable())
    return plain.replace("\\", "\\\\").replace('"', '\\"')


def _next_page(headers: Headers, page: URL) -> dict[str, str]:
    try:
        following = redirects.next_page(page, headers.getall("Link", []), side=Side.SOURCE)
    except Rejected:
        return {}  # it leads away from the place: there is no page of it behind us
    return {} if following is None else {"Link": f'<{following.raw_path_qs}>; rel="next"'}
