"""The URLs in answers: redirects, upload Locations and Link headers. Pure."""

import re

from yarl import URL

from mesh.errors import Rejected
from schemas.completions import Side

MAX_HOPS = 5
_STATUSES = frozenset({301, 302, 303, 307, 308})
_ASCII_URL = re.compile(r"[\x21-\x7e]{1,8190}")
_NEXT = re.compile(r"<([^<>]*)>([^<]*)")
_REL_NEXT = re.compile(r";\s*rel\s*=\s*(?:\"next\"|next(?:[\s;,]|$))", re.IGNORECASE)


def is_redirect(method: str, status: int) -> bool:
    """Returns whether to follow a redirect: only without a body, as a streamed body cannot be read twice."""
    return status in _STATUSES and method in ("GET", "HEAD")


def resolve(base: URL, location: str, *, side: Side) -> URL:
    """Returns `location`, absolute or relative to `base`, without re-encoding it, as its query may be signed.

    Raises:
        Rejected: It is not an http(s) URL, contains a user, or leads from https to http.
    """
    try:
        if not _ASCII_URL.fullmatch(location):
            raise ValueError("empty, too long or not ASCII")  # noqa: TRY301  # one translation for all
        url = base.join(URL(location, encoded=True)).with_fragment(None)
        if url.scheme not in ("http", "https") or not url.host or url.port is None:
            raise ValueError("not an http URL")  # noqa: TRY301
        if url.user is not None or url.password is not None:
            raise ValueError("it contains a user")  # noqa: TRY301
    except ValueError as error:
        raise Rejected(f"{base.host} answered with an invalid location: {error}", side=side) from error
    if base.scheme == "https" and url.scheme == "http":
        raise Rejected(f"{base.host} redirects from https to http ({url.host})", side=side)
    return url


def with_digest(location: URL, digest: str) -> URL:
    """Returns the upload's URL with `digest` appended to its otherwise unchanged query."""
    mark = "&" if location.raw_query_string else "?"
    return URL(f"{str(location).rstrip('?')}{mark}digest={digest}", encoded=True)


def next_page(page: URL, links: list[str], *, side: Side) -> URL | None:
    """Returns the URL of `Link: <...>; rel="next"` (RFC 8288), or None on the last page.

    Raises:
        Rejected: It is the same page, or on another origin.
    """
    for header in links:
        for target, parameters in _NEXT.findall(header):
            if _REL_NEXT.search(parameters):
                return _same_host(page, resolve(page, target, side=side), side)
    return None


def _same_host(page: URL, following: URL, side: Side) -> URL:
    if following.origin() != page.origin() or following == page:
        raise Rejected(f"{page.host} names {following.host} as its next page", side=side)
    return following
