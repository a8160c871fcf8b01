"""The rules revision that an event is stamped with.

Why ask the log at all, when the table follows it anyway: an operator applies a rule, gets the answer, pushes, and the
notification may reach us before the rule reaches our table. An event stamped with the older revision would be judged
by agents that do not know the rule either, and be lost to it. So a read barrier that begins after the request arrived
(the table lets concurrent requests share one) tells what was declared before the push; an agent holds the event until
its own table is as new.
"""

import asyncio
from typing import NamedTuple

from mesh.errors import LogError
from mesh.log.table import Table

LONGEST_WAIT = 0.5  # seconds: registries give up a notification after 1 s and send it again


class Stamp(NamedTuple):
    rules_rev: int
    fresh: bool  # False: the log did not tell in time, and this is only what we knew


async def stamp(table: Table) -> Stamp:
    """The revision to stamp an event with that arrived before this call."""
    try:
        async with asyncio.timeout(LONGEST_WAIT):
            await table.caught_up()
    except (TimeoutError, LogError):
        return Stamp(table.rev, fresh=False)
    return Stamp(table.rev, fresh=True)
