"""Whoever may declare things chooses no host that a secret of the operator is sent to."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mesh.credentials.credentials import Credentials as Known
from mesh.node.node import Trust
from mesh.registry.builtin.registry import Credentials
from tests.support import images
from tests.support.mesh_site import MeshSite, mesh_site, until
from tests.support.registries import Stub, stub

PROD, KEY = "robot:password-of-production", "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MeshSite]:
    """Production, which asks for the secret that the operator named for it, and a rule from it."""
    monkeypatch.setenv("REGMESH_SECRET_PROD", PROD)
    monkeypatch.setenv("REGMESH_SECRET_HOOK", KEY)
    monkeypatch.setenv("REGMESH_SECRET_RELAY", "of the mesh")
    hosts: dict[str, set[str]] = {"RELAY": {"relays"}}
    async with mesh_site(tmp_path, trust=Trust(secret_hosts=hosts)) as found:
        registry = await found.registry("prod", credentials=Credentials(*PROD.split(":")))
        hosts["PROD"] = {registry.url}
        await found.apply({
            "regions": [{"name": "here", "jurisdiction": "x", "relay": {"secret": "RELAY"}}],
            "instances": [instance("prod", registry.url)],
        })  # fmt: skip
        await found.start_agent("here")
        await until(lambda: state(found, "prod"))
        yield found


@pytest.fixture
async def attacker() -> AsyncIterator[Stub]:
    """A server that asks everybody for credentials, as a registry does."""
    async with stub() as found:

        async def ask(_: web.Request) -> web.StreamResponse:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

        found.answer = ask
        yield found


def instance(name: str, url: str) -> dict[str, Any]:
    return {"name": name, "account": "game", "region": "here", "url": url, "credentials": "PROD"}


async def push(site: MeshSite) -> None:
    """Pushes an image to production, as its users do."""
    user, _, password = PROD.partition(":")
    await site.push("prod", "v1", images.image(layers=[b"layer"]), credentials=Known(user, password))


async def state(site: MeshSite, name: str) -> str | None:
    found: str | None = (await site.get(f"instances/{name}"))["state"]
    return found


async def test_credentials_are_sent_to_no_host_that_was_declared_over_the_api(
    site: MeshSite, attacker: Stub
) -> None:
    assert await state(site, "prod") == "Ready"
    for name in ("evil", "bait"):
        await site.api.request("PUT", f"/api/v1/instances/{name}", body=instance(name, attacker.url))
    await site.api.request("PUT", "/api/v1/rules/take", body={"source": "bait", "destination": "prod"})
    await site.api.request("PUT", "/api/v1/rules/give", body={"source": "prod", "destination": "evil"})
    await site.api.request("POST", "/api/v1/executions", body={"rule": "take"})
    failed = await until(lambda: state(site, "evil"))
    assert failed.startswith(f"Failed: secret 'PROD' is not for {attacker.url}: ")
    assert "REGMESH_SECRET_PROD_HOSTS" in failed

    async def found_by_doctor() -> list[str]:
        findings = (await site.get("doctor"))["items"]
        return [str(one) for one in findings if "is not for" in str(one)]

    assert await until(found_by_doctor)
    await push(site)

    async def everything_ended() -> bool:
        executions = (await site.get("executions"))["items"]
        return bool(await site.logs(rule="give")) and all(it["status"] != "InProgress" for it in executions)

    await until(everything_ended)
    (entry,) = await site.logs(rule="give")
    assert (entry["status"], "is not for" in str(entry["error"])) == ("Failed", True)
    assert set(attacker.authorizations()) <= {None}
    assert PROD.partition(":")[2] not in f"{failed} {entry}"


async def test_credentials_do_not_follow_an_instance_that_is_given_another_url(
    site: MeshSite, attacker: Stub
) -> None:
    await site.api.request("PUT", "/api/v1/instances/prod", body=instance("prod", attacker.url))

    async def is_refused() -> bool:
        return "is not for" in (await state(site, "prod") or "")

    await until(is_refused)
    assert attacker.authorizations() == []


async def test_a_webhook_of_another_host_is_not_signed_and_gets_nothing(
    site: MeshSite, attacker: Stub
) -> None:
    hook = {"url": f"{attacker.url}/hook", "secret": "HOOK", "event_types": ["replication.failed"]}
    await site.api.request("PUT", "/api/v1/webhooks/mine", body=hook)
    await site.api.request("PUT", "/api/v1/instances/evil", body=instance("evil", attacker.url))
    await site.api.request("PUT", "/api/v1/rules/give", body={"source": "prod", "destination": "evil"})
    await push(site)

    async def failure() -> str:
        return str((await site.get("webhooks/mine"))["last_failure"] or "")

    assert "secret 'HOOK' is not for" in await until(failure)
    assert [it.path for it in attacker.asked if it.path == "/hook"] == []


async def test_a_declared_relay_url_is_announced_only_when_the_operator_named_it(
    site: MeshSite, attacker: Stub
) -> None:
    async def announced() -> list[str | None]:
        return [one["relay"] for one in (await site.get("agents"))["items"]]

    assert await announced() == [site.url]
    for relay in ({"secret": "RELAY", "url": attacker.url}, {"secret": "PROD"}):
        await site.api.request("PUT", "/api/v1/regions/here", body={"jurisdiction": "x", "relay": relay})

        async def announces_nothing() -> bool:
            return await announced() == [None]

        await until(announces_nothing)
        await site.api.request(
            "PUT", "/api/v1/regions/here", body={"jurisdiction": "x", "relay": {"secret": "RELAY"}}
        )

        async def announces_its_own() -> bool:
            return await announced() == [site.url]

        await until(announces_its_own)
