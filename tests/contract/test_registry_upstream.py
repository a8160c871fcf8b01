"""The upstream client: names that no resolver answers in time, and clients that disconnect."""

import asyncio
import socket

import pytest
from aiohttp import ClientTimeout
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from mesh.errors import Rejected, Unreachable
from mesh.registry import upstream
from mesh.registry.egress import GuardedResolver
from mesh.registry.upstream import UpstreamClient, UpstreamRequest
from tests.support import registries

ASKED = UpstreamRequest("GET", "team/app/blobs/x")


class Silent(AbstractResolver):
    """A name server that never answers."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def close(self) -> None:
        """Does nothing."""


def opened(url: str, names: AbstractResolver) -> UpstreamClient:
    made = UpstreamClient("place", URL(url), networks=(), realms=frozenset())
    made._public_names = GuardedResolver((), names)
    return made


async def test_an_unresolvable_redirect_does_not_block_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway then follows it itself, under the same rules."""
    monkeypatch.setattr(upstream, "_CONNECT", 0.05)
    async with registries.stub() as stub, asyncio.timeout(30):
        stub.says(307, Location="http://store.invalid/x")
        names = Silent()
        client = opened(stub.url, names)
        with pytest.raises(Unreachable, match=r"store\.invalid"):
            await client.send(ASKED)
        await client.close()
    assert names.asked.is_set()


@pytest.mark.parametrize("timeout", [upstream._STREAM, upstream._SHORT])
def test_name_resolution_counts_as_connecting(timeout: ClientTimeout) -> None:
    assert timeout.connect is not None


async def test_a_client_that_disconnects_during_a_redirect_leaves_no_connection() -> None:
    async with registries.stub() as stub, asyncio.timeout(30):
        stub.says(307, bytes(2_000_000), Location="http://store.invalid/x")
        names = Silent()
        client = opened(stub.url, names)
        asking = asyncio.create_task(client.send(ASKED))
        await names.asked.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        connector = client._trusted.connector
        assert connector is not None
        assert not connector._acquired
        await client.close()


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example"])
async def test_a_redirect_to_an_invalid_name_is_refused(host: str) -> None:
    async with registries.stub() as stub:
        stub.says(307, Location=f"http://{host}/x")
        client = UpstreamClient("place", URL(stub.url), networks=(), realms=frozenset())
        with pytest.raises(Rejected, match="host name"):
            await client.send(ASKED)
        await client.close()
