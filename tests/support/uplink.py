"""A region's uplink: a TCP proxy before a registry with a limit for the bytes per second of all its connections.

It counts the bytes that went out, and the requests for each blob. Its event loop runs in a thread of its own.
"""

import asyncio
import contextlib
import re
import threading
from collections import Counter

from consumer.blobs.throttle import Bucket

_PIECE = 64 * 1024
_BLOB = re.compile(rb"^GET /v2/\S+/blobs/(sha256:[0-9a-f]{64})", re.MULTILINE)


class Uplink:
    """The proxy. `rate` is in bytes per second; with None it only counts."""

    def __init__(self, port: int, rate: int | None = None) -> None:
        self._target, self._rate = port, rate
        self._bucket = Bucket()
        self.bytes_out = 0
        self.asked: Counter[str] = Counter()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._stopping: asyncio.Event
        listening = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listening,), daemon=True, name="uplink")
        self._thread.start()
        listening.wait(10)

    @property
    def url(self) -> str:
        """The URL of the registry through the proxy."""
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Cuts all connections and ends the thread."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    def _run(self, listening: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(listening))
        self._loop.close()

    async def _serve(self, listening: threading.Event) -> None:
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=_PIECE)
        self.port = server.sockets[0].getsockname()[1]
        listening.set()
        await self._stopping.wait()
        server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await asyncio.sleep(0.05)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # the test is over
            await self._connect(reader, writer)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            behind, before = await asyncio.open_connection("127.0.0.1", self._target, limit=_PIECE)
            writers.append(before)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, before, out=False))
                group.create_task(self._pump(behind, writer, out=True))
        except* OSError:
            pass
        finally:
            for one in writers:
                one.transport.abort()
            await asyncio.sleep(0)  # their sockets are closed in the loop's next turn

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, out: bool) -> None:
        while piece := await reader.read(_PIECE):
            if out:
                self.bytes_out += len(piece)
                if self._rate is not None:
                    await asyncio.sleep(self._bucket.take(len(piece), self._rate, self._loop.time()))
            else:
                self.asked.update(found.decode() for found in _BLOB.findall(piece))
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
