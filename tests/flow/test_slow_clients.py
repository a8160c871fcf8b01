"""A listener with clients that make no progress: they are disconnected, and slow ones that make some are not."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from prometheus_client import CollectorRegistry

from mesh.metrics import Metrics
from mesh.node import serve
from mesh.node.node import open_node
from mesh.node.settings import NodeSettings

KiB = 1024
_PROGRESS = 1.5  # seconds
_CHUNKS = 12


@dataclass
class Listener:
    """A listener with one route that counts a body and one that sends a blob."""

    url: str
    metrics: Metrics

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def ended(self, reason: str) -> float:
        labels = {"listener": "127.0.0.1:0", "reason": reason}
        name = "regmesh_http_connections_ended_total"
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.address)


@asynccontextmanager
async def listener(folder: Path, **settings: float) -> AsyncIterator[Listener]:
    async def upload(request: web.Request) -> web.Response:
        size = 0
        async for chunk in request.content.iter_any():
            size += len(chunk)
        return web.json_response({"size": size})

    async def download(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(64):
            await response.write(bytes(256 * KiB))
        return response

    def routes(app: web.Application) -> None:
        app.router.add_post("/upload", upload)
        app.router.add_get("/download", download)

    async with open_node(None, folder, metrics=Metrics(CollectorRegistry())) as opened:
        node_settings = NodeSettings.model_validate({
            "http_headers_timeout": 1.0, "http_body_progress": _PROGRESS, "http_send_progress": _PROGRESS,
        } | settings)  # fmt: skip
        node = replace(opened, settings=replace(opened.settings, node=node_settings))
        async with serve.listening("127.0.0.1:0", node, [routes]) as url:
            yield Listener(url, node.metrics)


async def _until_closed(reader: asyncio.StreamReader) -> bytes:
    """Returns what the server sends until it closes the connection."""
    found = b""
    async with asyncio.timeout(20):
        try:
            while data := await reader.read(65_536):
                found += data
        except ConnectionError:
            pass
    return found


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"", "headers"),
        (b"POST /upload HTTP/1.1\r\nHost: x\r\nX-A: ", "headers"),
        (b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf", "body"),
        (b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "body"),
    ],
)
async def test_a_client_that_sends_half_a_request_is_disconnected(
    tmp_path: Path, sent: bytes, reason: str
) -> None:
    async with listener(tmp_path) as server:
        reader, writer = await server.connect()
        writer.write(sent)
        assert await _until_closed(reader) == b""
        assert server.ended(reason) == 1
        writer.close()


async def test_a_client_that_does_not_take_its_response_is_disconnected(tmp_path: Path) -> None:
    async with listener(tmp_path) as server:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KiB)
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, server.address)
            await asyncio.get_running_loop().sock_sendall(
                client, b"GET /download HTTP/1.1\r\nHost: x\r\n\r\n"
            )
            await _holds(lambda: server.ended("send") == 1)
        assert server.ended("body") == server.ended("headers") == 0


async def test_a_body_that_takes_longer_than_every_time_out_arrives(tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(_CHUNKS):
            yield bytes(2 * KiB)
            await asyncio.sleep(_PROGRESS / 3)

    async with (
        listener(tmp_path) as server,
        ClientSession() as session,
        session.post(f"{server.url}/upload", data=body()) as answer,
    ):
        assert (answer.status, await answer.json()) == (200, {"size": _CHUNKS * 2 * KiB})


async def test_a_download_that_takes_longer_than_every_time_out_arrives(tmp_path: Path) -> None:
    async with listener(tmp_path) as server:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KiB)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, server.address)
            await loop.sock_sendall(client, b"GET /download HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            size = 0
            for _ in range(_CHUNKS):
                size += len(await loop.sock_recv(client, 4 * KiB))
                await asyncio.sleep(_PROGRESS / 3)
            while data := await loop.sock_recv(client, 256 * KiB):
                size += len(data)
        assert size > 64 * 256 * KiB
        assert server.ended("send") == 0


async def test_a_new_client_takes_the_place_of_one_without_a_request(tmp_path: Path) -> None:
    async with listener(tmp_path, http_connections=4, http_headers_timeout=600) as server:
        half = [await server.connect() for _ in range(4)]
        for _, writer in half:
            writer.write(b"POST /upload HTTP/1.1\r\n")
        await asyncio.sleep(1.2)
        async with ClientSession() as session, session.get(f"{server.url}/healthz") as answer:
            assert answer.status == 200
        assert (server.ended("replaced"), server.ended("full")) == (1, 0)
        for _, writer in half:
            writer.close()


async def test_a_client_over_the_limit_gets_503_while_all_connections_have_requests(tmp_path: Path) -> None:
    async with listener(tmp_path, http_connections=2, http_body_progress=600) as server:
        busy = [await server.connect() for _ in range(2)]
        for _, writer in busy:
            writer.write(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
        await asyncio.sleep(1.2)
        reader, writer = await server.connect()
        answer = await _until_closed(reader)
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        assert server.ended("full") == 1
        busy[0][1].write(b"done")
        status = await busy[0][0].readline()
        assert status == b"HTTP/1.1 200 OK\r\n"
        for _, other in (*busy, (reader, writer)):
            other.close()


async def _holds(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.05)
