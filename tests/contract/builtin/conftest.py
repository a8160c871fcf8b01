"""A running built-in registry and a client of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from mesh.clock import SystemClock
from mesh.registry.builtin import BuiltinRegistry
from tests.support.builtin_client import Client


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[BuiltinRegistry]:
    registry = BuiltinRegistry(tmp_path / "registry", clock=SystemClock())
    await registry.start()
    yield registry
    await registry.stop()


@pytest.fixture
async def ask(registry: BuiltinRegistry) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(registry, session)
