"""A group member in a process that a test kills: prints 12 each time it has read from all 12 partitions."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from mesh.clock import SystemClock
from mesh.log.kafka import open_log
from tests.support.kafka_engine import QUICK_TIMEOUTS


async def main(url: str, topic: str, group_name: str) -> None:
    log = await open_log(url, clock=SystemClock(), secrets=lambda _: None, timeouts=QUICK_TIMEOUTS)
    member = await log.group(group_name, [topic])
    partitions = set()
    while True:
        partitions |= {record.partition for record in await member.read(max_records=100, timeout=0.2)}
        if len(partitions) == 12:
            print(len(partitions), flush=True)
            partitions.clear()


asyncio.run(main(*sys.argv[1:]))
