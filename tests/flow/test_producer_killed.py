"""An intake that is killed under load: everything that it acknowledged is on the log."""

import asyncio
import sys
from datetime import UTC, datetime

from aiohttp import ClientError, ClientSession, TCPConnector

from mesh.clock import SystemClock
from mesh.log.sqlite import open_log
from producer.normalise import NORMALISE
from producer.normalise.outcome import Context
from schemas import topics
from schemas.codec import decode
from schemas.events import Event
from tests.bench.intake import notification
from tests.support.intake_site import BEIJING, GAME_CN


def body_of(number: int) -> bytes:
    return notification(number).partition(b"\r\n\r\n")[2]


async def test_what_was_acknowledged_is_there_after_a_kill(tmp_path):
    path = tmp_path / "mesh.db"
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.intake", "--serve", "--log", f"sqlite://{path}"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int((await server.stdout.readline()).split()[-1])}/v1/notifications/game-cn"
    acknowledged: set[int] = set()
    sent = iter(range(1_000_000))

    async def send(http: ClientSession) -> None:
        while True:
            number = next(sent)
            body = body_of(number)
            try:
                async with http.post(url, data=body) as answer:
                    if answer.status == 202:
                        acknowledged.add(number)
            except (ClientError, ConnectionError):
                return

    async with ClientSession(connector=TCPConnector(limit=0)) as http, asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(send(http))
        while len(acknowledged) < 200:
            await asyncio.sleep(0.01)
        server.kill()
    await server.wait()

    log = await open_log(path, clock=SystemClock())
    found: list[Event] = []
    async for batch in log.follow(topics.events(BEIJING)):
        found += [decode(record.value, Event) for record in batch.records if record.value]
        ends = await log.end(topics.events(BEIJING))
        if all(batch.positions[number] >= end for number, end in ends.items()):
            break
    await log.close()
    context = Context(GAME_CN, 0, datetime.now(UTC))
    acknowledged_ids = {
        event.id
        for number in acknowledged
        for event in NORMALISE["distribution"](body_of(number), context).events
    }
    assert len(acknowledged_ids) == len(acknowledged) >= 200
    assert acknowledged_ids <= {event.id for event in found}
