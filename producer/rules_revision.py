"""The rules revision that an event is stamped with.

The producer asks the log although its table follows the log anyway: an operator applies a rule, gets the answer and
pushes, and the notification may arrive before the rule reaches the table. An event stamped with the older revision
would be matched by agents that do not know the rule either, and the rule would miss it. A read barrier that starts
after the request arrived covers everything declared before the push (the table shares one barrier between concurrent
requests). An agent holds the event until its own table is as new as the stamp.
"""

import asyncio
from typing import NamedTuple

from mesh.errors import LogError
from mesh.log.table import Table


class RulesRevision(NamedTuple):
    """A revision of the declared rules; not `current` when the log did not answer in time and it is the last known."""

    rev: int
    current: bool


async def read_rules_revision(table: Table, timeout: float) -> RulesRevision:
    """Returns the newest revision that existed at this call, or the last known one after `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            await table.caught_up()
    except (TimeoutError, LogError):
        return RulesRevision(table.rev, current=False)
    return RulesRevision(table.rev, current=True)
