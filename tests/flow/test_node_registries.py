"""Clients of registries that a node opens with the configured secrets."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from mesh.errors import Denied, InvalidInput
from mesh.metrics import Metrics
from mesh.node import registries
from mesh.node.node import Node, Trust, open_node
from schemas.names import Account, ObjectName, Region, SecretName
from schemas.topology import Instance
from tests.support.registries import stub

RIGHT = "Basic " + base64.b64encode(b"anna:right").decode()


@asynccontextmanager
async def _node(folder: Path, url: str) -> AsyncIterator[Node]:
    """Opens a node whose operator named `url` for the secret EU."""
    trust, metrics = Trust(secret_hosts={"EU": {url}}), Metrics(CollectorRegistry())
    async with open_node(None, folder / "data", trust, metrics=metrics) as node:
        yield node


async def test_a_rotated_secret_file_needs_no_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "EU"
    monkeypatch.setenv("REGMESH_SECRETS_DIR", str(tmp_path))

    async def guard(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") == RIGHT:
            return web.json_response({})
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="here"'})

    async with stub() as registry, _node(tmp_path, registry.url) as node:
        registry.answer = guard
        place = Instance(
            name=ObjectName("eu"), account=Account("game"), region=Region("frankfurt"), url=registry.url,
            credentials=SecretName("EU"),
        ).as_place()  # fmt: skip
        open_one = registries.opener(node)
        with pytest.raises(InvalidInput, match="has no value"):
            open_one(place)
        secret.write_text("anna:wrong")
        endpoint = open_one(place)
        try:
            with pytest.raises(Denied):
                await endpoint.ping()
            secret.write_text("anna:right\n")
            await endpoint.ping()
            secret.unlink()  # while it is being replaced
            await endpoint.ping()
        finally:
            await endpoint.close()
