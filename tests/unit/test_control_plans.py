"""Nothing that is asked again and again goes through a whole table: its size is the number of tasks, or of tags."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.control.database import Database
from mesh.control.held import Held, Key
from mesh.control.images import Images
from schemas.events import Cause
from tests.control_plans import explained
from tests.control_site import DIGEST, NOW, completion

OTHER = "sha256:" + "cd" * 32


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'control.db'}")
    yield opened
    await opened.close()


async def test_what_is_told_of_tags_is_looked_up_by_their_names(database: Database) -> None:
    images = Images(database)
    news = [(Key("cn", f"app-{n % 7}", f"v{n}"), Held(DIGEST, NOW, Cause.ARRIVAL, n)) for n in range(50)]
    about = {("game-eu", "game/server", DIGEST), ("cn", "app-1", DIGEST)}
    with explained(database) as plans:
        await images.take(news)
        await images.ended([completion(attached=[OTHER])])
        assert await images.referrers(about) == {("game-eu", "game/server", DIGEST): 1}
        await images.ended([completion(attached=[OTHER])])
        assert len(await images.held([("cn", "app-1")], ["v1", "v8"])) == 2
    assert plans
    assert plans.scans("images", "image_referrers") == []
