"""An agent that starts, or is stopped, while the log is away."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.errors import LogUnavailable
from mesh.log.port import Log
from schemas.completions import Status
from tests.flow.test_agent import Site, open_site
from tests.support import images


class Away:
    """Makes calls of a log fail as they do while Kafka is away, until `over`."""

    def __init__(self, log: Log, calls: tuple[str, ...]) -> None:
        self.over, self.failed = False, dict.fromkeys(calls, 0)
        for name in calls:
            setattr(log, name, self._failing(name, getattr(log, name)))

    async def was_asked(self, call: str) -> None:
        async with asyncio.timeout(20):
            while not self.failed[call]:
                await asyncio.sleep(0.01)

    def _failing(self, name: str, real: object) -> object:
        async def call(*arguments: object) -> object:
            if self.over:
                return await real(*arguments)  # type: ignore[operator]
            self.failed[name] += 1
            raise LogUnavailable("no Kafka answers")

        return call


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path) as found:
        await found.kill()
        yield found


@pytest.mark.parametrize("call", ["ensure", "end"])
async def test_an_agent_that_starts_while_the_log_is_away_waits_for_it(site: Site, call: str) -> None:
    away = Away(site.log, (call,))
    await site.start()
    await away.was_asked(call)
    await asyncio.sleep(0.3)
    away.over = True
    image = images.image(layers=[b"x"])
    await site.push("v1", image)
    (end,) = await site.ends(1)
    assert (end.status, end.digest) == (Status.SUCCEED, image.digest)


@pytest.mark.parametrize("call", ["ensure", "end"])
async def test_an_agent_that_waits_for_the_log_can_be_stopped(site: Site, call: str) -> None:
    away = Away(site.log, (call,))
    await site.start()
    await away.was_asked(call)
    async with asyncio.timeout(10):
        await site.stop()
    assert not away.over
