"""Reading the body of a notification within bounds, so that a sender cannot make the producer hold much memory."""

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import StreamReader

from schemas.dead_letters import MAX_BYTES as KEPT_OF_OVERSIZED

MAX_READ = (
    64 * 1024 * 1024
)  # a client that is still writing may not see the answer; no need to read more than this
_DESCRIBING = (
    "ce-",
    "x-goog-pubsub-",
)  # CloudEvents and Pub/Sub keep what is not in the body in such headers


@dataclass(frozen=True, slots=True)
class Body:
    """A body as received: of an `oversized` one `raw` is the beginning; `size` counts all bytes that were read."""

    raw: bytes
    size: int
    oversized: bool


def descriptive_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Returns the headers that describe the body, with lower-case names; no others, as one of them is the secret."""
    return {name.lower(): value for name, value in headers.items() if name.lower().startswith(_DESCRIBING)}


async def receive(content: StreamReader, max_bytes: int) -> Body:
    """Reads a body; keeps the first 256 KiB of one over `max_bytes`, and reads at most 64 MiB of it."""
    kept = bytearray()
    size = 0
    async for chunk in content.iter_any():
        size += len(chunk)
        kept += chunk
        if size > max_bytes:
            del kept[KEPT_OF_OVERSIZED:]
        if size > MAX_READ:
            break
    return Body(bytes(kept), size, oversized=size > max_bytes)
