"""Places whose credentials come from a helper of Docker's config.json, opened as nodes open them."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from consumer.places import Places
from mesh.clock import SystemClock
from mesh.credentials.credentials import Credentials
from mesh.credentials.helper import CredentialHelper
from mesh.errors import Denied
from mesh.metrics import Metrics
from mesh.node.node import open_node
from mesh.node.registries import opener
from mesh.registry.builtin import BuiltinRegistry
from mesh.registry.client import open_endpoint
from mesh.registry.port import digest_of
from schemas.completions import Side
from schemas.names import Account, ObjectName, PlaceName, Region, Repository
from schemas.topology import Place
from tests.support import registries
from tests.support.manual_clock import ManualClock

APP, BLOB = Repository("team/app"), digest_of(b"blob")


def says(folder: Path, secret: str, *, user: str = "anna", name: str = "test") -> None:
    answer = json.dumps({"Username": user, "Secret": secret})
    (folder / f"docker-credential-{name}").write_text(f"#!/bin/sh\necho '{answer}'\n")
    (folder / f"docker-credential-{name}").chmod(0o755)


def helper(folder: Path, clock: ManualClock) -> CredentialHelper:
    return CredentialHelper("test", "registry.example", {"PATH": f"{folder}:{os.environ['PATH']}"}, clock)


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[dict[str, BuiltinRegistry]]:
    async with AsyncExitStack() as stack:
        found = {}
        for name in ("kept", "lost", "open"):
            known = None if name == "open" else Credentials("anna", "hush")
            found[name] = BuiltinRegistry(tmp_path / name, clock=SystemClock(), credentials=known)
            await found[name].start()
            stack.push_async_callback(found[name].stop)
        yield found


async def test_a_place_whose_helper_fails_says_so_and_delays_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, three: dict[str, BuiltinRegistry]
) -> None:
    says(tmp_path, "hush")
    hosts = {name: urlsplit(registry.url).netloc for name, registry in three.items()}
    helpers = {hosts["kept"]: "test", hosts["lost"]: "nobody", hosts["open"]: "nobody"}
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": helpers}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    metrics = Metrics(CollectorRegistry())
    async with open_node(None, tmp_path / "data", metrics=metrics) as node:
        places = Places(
            opener(node), open_anonymous=opener(node, anonymous=True), metrics=metrics, clock=node.clock
        )
        await places.check([_place(name, registry.url) for name, registry in three.items()])
        states = places.states()
        await places.close()
    lost = f"docker-credential-nobody, which config.json names for {hosts['lost']}, is not on PATH"
    assert states == {
        "kept": "Ready",
        "lost": f"Failed: {lost}",
        "open": "Ready",
    }  # the registry of the last asks for no credentials


def _place(name: str, url: str) -> Place:
    return Place(
        name=PlaceName(name), instance=ObjectName(name), account=Account("game"), region=Region("beijing"),
        url=url, credentials=None,
    )  # fmt: skip


async def test_a_rejected_password_is_refreshed(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    registry = BuiltinRegistry(tmp_path / "r", clock=SystemClock(), credentials=Credentials("anna", "second"))
    await registry.start()
    says(tmp_path, "first")
    endpoint = open_endpoint("place", registry.url, helper(tmp_path, clock))
    try:
        with pytest.raises(Denied):
            await endpoint.ping()
        says(tmp_path, "second")
        with pytest.raises(Denied):  # the answer is cached for ten seconds: not every request runs the helper
            await endpoint.ping()
        await clock.sleep(11)
        await asyncio.gather(*(endpoint.ping() for _ in range(5)))
    finally:
        await endpoint.close()
        await registry.stop()


class TokenServer:
    """Issues a token for the `wanted` credentials, by form or Basic; its registry has one blob."""

    def __init__(self, stub: registries.Stub, wanted: str) -> None:
        self.stub, self.wanted, self.forms = stub, wanted, list[dict[str, Any]]()
        stub.answer = self.handle

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            form = dict(await request.post())
            self.forms.append(form)
            shown = form.get("refresh_token", request.headers.get("Authorization"))
            if shown != self.wanted:
                return web.Response(status=401)
            return web.json_response({"access_token": "good", "expires_in": 300})
        if request.headers.get("Authorization") == "Bearer good":
            return web.Response(body=b"blob")
        realm = f'Bearer realm="{self.stub.url}/token",service="stub",scope="repository:{APP}:pull"'
        return web.Response(status=401, headers={"WWW-Authenticate": realm})


async def test_an_identity_token_is_sent_only_to_the_token_server(
    tmp_path: Path,
) -> None:
    says(tmp_path, "hush", user="<token>")
    async with registries.stub() as stub:
        server = TokenServer(stub, "hush")
        endpoint = open_endpoint(
            "place", stub.url, helper(tmp_path, ManualClock(datetime(2026, 1, 1, tzinfo=UTC)))
        )
        assert await endpoint.registry(Side.SOURCE).blob_size(APP, BLOB) == 4
        await endpoint.close()
    assert server.forms == [
        {
            "grant_type": "refresh_token", "refresh_token": "hush", "client_id": "regmesh", "service": "stub",
            "scope": f"repository:{APP}:pull",
        }
    ]  # fmt: skip
    assert stub.authorizations() == [None, None, "Bearer good"]


async def test_a_rejected_identity_token_is_refreshed_from_the_helper(
    tmp_path: Path,
) -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    says(tmp_path, "first", user="<token>")
    async with registries.stub() as stub:
        server = TokenServer(stub, "first")
        endpoint = open_endpoint("place", stub.url, helper(tmp_path, clock), clock=clock)
        registry = endpoint.registry(Side.SOURCE)
        assert await registry.blob_size(APP, BLOB) == 4
        server.wanted = "second"
        says(tmp_path, "second", user="<token>")
        await clock.sleep(295)  # the bearer token has expired, the answer of the helper is still cached
        assert await registry.blob_size(APP, BLOB) == 4
        await endpoint.close()
    assert [form["refresh_token"] for form in server.forms] == ["first", "first", "second"]
