"""Which headers of a request are forwarded to a place, and which of its response to the client.

Only the headers that are listed here pass: no cookies, no names of internal hosts. Bearer challenges and the next page
of a list are rewritten to lead to this gateway.
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

AUTHORIZATION = "Authorization"
_REQUEST = (AUTHORIZATION, "Accept", "Range", "If-Range", "If-None-Match", "If-Modified-Since")
_RESPONSE = (
    "Content-Type", "Content-Length", "Content-Range", "Content-Encoding", "Accept-Ranges", "ETag", "Last-Modified",
    "Cache-Control", "Docker-Content-Digest", "OCI-Filters-Applied", "Retry-After",
)  # fmt: skip
VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}


def selected(headers: Mapping[str, str], *names: str) -> dict[str, str]:
    """Returns the headers of these names that are there."""
    return {name: headers[name] for name in names if name in headers}


def for_place(headers: Headers) -> dict[str, str]:
    """Returns the headers of a client's request that are forwarded to a place."""
    return {name: ", ".join(headers.getall(name)) for name in _REQUEST if name in headers}


def anonymous(headers: Mapping[str, str]) -> dict[str, str]:
    """Returns the headers for a place that the client's credentials are not for."""
    return {name: value for name, value in headers.items() if name != AUTHORIZATION}


def for_client(status: int, headers: Headers, page: URL) -> dict[str, str]:
    """Returns the headers of a place's response to `page` that are forwarded to the client."""
    kept = selected(headers, *_RESPONSE)
    if 300 <= status < 400 and "Location" in headers:
        kept["Location"] = headers["Location"]
    return kept | VERSION | _next_page(headers, page)


def token_url(base: str, place: PlaceName) -> str:
    """Returns where clients of the gateway at `base` request tokens of a place."""
    return f"{base}/token/{quote(place, safe='')}"


def challenge(
    headers: Headers, realm: str, check: Callable[[Challenge], object]
) -> tuple[CIMultiDict[str], list[Challenge]]:
    """Returns the `WWW-Authenticate` headers for a client, and the Bearer challenges that passed the check.

    Other schemes than Basic and Bearer are left out: they are bound to the place's host.

    Args:
        headers: Of the place's response.
        realm: Replaces the realm of Bearer challenges.
        check: Raises `Rejected` for a challenge that is left out.
    """
    rewritten, trusted = CIMultiDict[str](VERSION), list[Challenge]()
    for found in challenges.parse(headers.getall("WWW-Authenticate", [])):
        if found.scheme == "basic":
            rewritten.add("WWW-Authenticate", _render("Basic", found.parameters))
        elif found.scheme == "bearer" and _passes(found, check):
            trusted.append(found)
            rewritten.add("WWW-Authenticate", _render("Bearer", found.parameters | {"realm": realm}))
    return rewritten, trusted


def _passes(found: Challenge, check: Callable[[Challenge], object]) -> bool:
    try:
        check(found)
    except Rejected:
        return False
    return True


def _render(scheme: str, parameters: Mapping[str, str]) -> str:
    return f"{scheme} " + ",".join(f'{name}="{_escaped(value)}"' for name, value in parameters.items())


def _escaped(value: str) -> str:
    printable = "".join(char for char in value if char.isprintable())
    return printable.replace("\\", "\\\\").replace('"', '\\"')


def _next_page(headers: Headers, page: URL) -> dict[str, str]:
    try:
        following = redirects.next_page(page, headers.getall("Link", []), side=Side.SOURCE)
    except Rejected:
        return {}  # a link to another host: the gateway cannot serve that page
    return {} if following is None else {"Link": f'<{following.raw_path_qs}>; rel="next"'}
