"""The names that a registry lists, of repositories or of tags, page by page.

A registry may hold what no name of ours can say: it is older than the specification, or does not keep to it. One such
name hides no other, and is not forgotten either: after all that can be read comes `UnreadableNames`.
"""

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import orjson
from yarl import URL

from mesh.errors import Rejected, UnreadableNames
from mesh.registry import redirects
from mesh.registry.auth import Scopes
from mesh.registry.transport import Call, Channel, read_whole

MAX_PAGES = 10_000
MAX_PAGE_BYTES = 32 * 1024 * 1024  # some registries ignore `n` and send all
_PAGE = 1000  # names asked for at once
_MOST_KEPT, _LONGEST_KEPT = 100, 255  # of those that cannot be read, and characters of each

N = TypeVar("N")


async def names(
    channel: Channel, path: str, field: str, scopes: Scopes, kind: Callable[[str], N]
) -> AsyncIterator[N]:
    """What stands under `field` as `kind` reads it; `UnreadableNames` after the last when not all of it was."""
    page: URL | None = channel.url(path, f"?n={_PAGE}")
    kept, count = dict[str, None](), 0
    for _ in range(MAX_PAGES):
        if page is None:
            break
        found, page = await _page(channel, page, field, scopes)
        for text in found:
            try:
                name = kind(text)
            except ValueError:
                count += text not in kept
                if len(kept) < _MOST_KEPT and len(text) <= _LONGEST_KEPT:
                    kept[text] = None
            else:
                yield name
    else:
        raise Rejected(f"{path} has more than {MAX_PAGES} pages", side=channel.side)
    if count:
        raise UnreadableNames(f"/v2/{path}", list(kept), count, side=channel.side)


async def _page(channel: Channel, page: URL, field: str, scopes: Scopes) -> tuple[list[str], URL | None]:
    """What a page names, and the next one; `Rejected` when it is none."""
    async with channel.request(Call("GET", page, scopes), (200,)) as response:
        body = await read_whole(response, MAX_PAGE_BYTES)
    try:
        said = orjson.loads(body or b"")
        found = list(said.get(field) or [])
    except (ValueError, TypeError, AttributeError) as error:
        raise Rejected(f"the list at {page.path} is none: {error}", side=channel.side) from error
    if field not in said and "name" not in said:  # a list of tags says whose they are, be they none
        raise Rejected(f"the list at {page.path} is none: it has no {field!r}", side=channel.side)
    if not all(isinstance(name, str) for name in found):
        raise Rejected(f"the list at {page.path} is none: it names what is no text", side=channel.side)
    return found, redirects.next_page(page, response.headers.getall("Link", []), side=channel.side)
