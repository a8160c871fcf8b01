"""A notification's body, with bounds: a notification is small, and whoever sends more keeps no memory of ours."""

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import StreamReader

from schemas.dead_letters import MAX_BYTES as KEPT_OF_OVERSIZED

MAX_BODY = 8 * 1024 * 1024
MAX_READ = 64 * 1024 * 1024  # a client that still writes may not see our answer; beyond this it need not


@dataclass(frozen=True, slots=True)
class Body:
    raw: bytes  # of an oversized body only its beginning
    size: int  # bytes as they came

    @property
    def oversized(self) -> bool:
        return self.size > MAX_BODY


_DESCRIBING = ("ce-", "x-goog-pubsub-")  # where CloudEvents and Pub/Sub keep what is not in the body


def describing(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that say what the body is about, in lower case. No others: one of them is the secret."""
    return {name.lower(): value for name, value in headers.items() if name.lower().startswith(_DESCRIBING)}


async def receive(content: StreamReader) -> Body:
    """All of the body up to 8 MiB; of a larger one the first 256 KiB, the rest read (to 64 MiB) and forgotten."""
    kept = bytearray()
    size = 0
    async for chunk in content.iter_any():
        size += len(chunk)
        kept += chunk
        if size > MAX_BODY:
            del kept[KEPT_OF_OVERSIZED:]
        if size > MAX_READ:
            break
    return Body(bytes(kept), size)
