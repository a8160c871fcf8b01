"""Paginated lists of names: a repository's tags and a registry's catalog.

A registry may hold names that the OCI Distribution specification does not allow. They hide no valid name and are not
silently dropped either: `UnreadableNames` follows the last valid one.
"""

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import orjson
from yarl import URL

from mesh.errors import Rejected, UnreadableNames
from mesh.registry import redirects
from mesh.registry.auth import Scopes
from mesh.registry.sessions import read_whole
from mesh.registry.transport import Call, Channel

MAX_PAGES = 10_000
MAX_PAGE_BYTES = 32 * 1024 * 1024  # some registries ignore `n` and send everything
_PAGE_SIZE = 1000  # names in one page
_MOST_KEPT, _LONGEST_KEPT = 100, 255  # invalid names to report, and characters of each

N = TypeVar("N")


async def list_names(
    channel: Channel, path: str, field: str, scopes: Scopes, parse: Callable[[str], N]
) -> AsyncIterator[N]:
    """Yields the parsed names of `field` in every page of the list at `path`.

    Raises:
        Rejected: A page is not such a list, or there are more than 10,000 pages.
        UnreadableNames: After the last name, when `parse` raised `ValueError` for some.
    """
    page: URL | None = channel.url(path, f"?n={_PAGE_SIZE}")
    invalid, count = dict[str, None](), 0
    for _ in range(MAX_PAGES):
        if page is None:
            break
        texts, page = await _read_page(channel, page, field, scopes)
        for text in texts:
            try:
                name = parse(text)
            except ValueError:
                count += text not in invalid
                if len(invalid) < _MOST_KEPT and len(text) <= _LONGEST_KEPT:
                    invalid[text] = None
            else:
                yield name
    else:
        raise Rejected(f"{path} has more than {MAX_PAGES} pages", side=channel.side)
    if count:
        raise UnreadableNames(f"/v2/{path}", list(invalid), count, side=channel.side)


async def _read_page(channel: Channel, page: URL, field: str, scopes: Scopes) -> tuple[list[str], URL | None]:
    """Returns the names of a page and the URL of the next one."""
    async with channel.request(Call("GET", page, scopes), (200,)) as response:
        body = await read_whole(response, MAX_PAGE_BYTES)
    try:
        document = orjson.loads(body or b"")
        names = list(document.get(field) or [])
    except (ValueError, TypeError, AttributeError) as error:
        raise Rejected(f"{page.path} is not a list of names: {error}", side=channel.side) from error
    if field not in document and "name" not in document:  # an empty list of tags may have a name alone
        raise Rejected(f"{page.path} is not a list of names: {field!r} is missing", side=channel.side)
    if not all(isinstance(name, str) for name in names):
        raise Rejected(f"{page.path} is not a list of names: a name is not a string", side=channel.side)
    return names, redirects.next_page(page, response.headers.getall("Link", []), side=channel.side)
