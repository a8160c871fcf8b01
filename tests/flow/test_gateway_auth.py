"""Who may pull through the gateway: the place that serves decides, by the client's own credentials."""

import base64
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, web
from yarl import URL

from mesh.credentials.credentials import Credentials as Known
from mesh.gateway import GatewayOptions
from mesh.gateway.deliver import ResponseDelivery
from mesh.node.node import Trust
from mesh.registry.builtin.registry import Credentials
from mesh.registry.client import open_endpoint
from mesh.registry.egress import parse_networks
from mesh.registry.upstream import UpstreamClient
from schemas.completions import Side
from schemas.names import Tag
from tests.support import images
from tests.support.gateway_site import HUB, Answer, GatewaySite, gateway
from tests.support.mesh_site import APP, MeshSite, mesh_site
from tests.support.registries import stub
from tests.support.token_registry import BASIC, PASSWORD, USER, token_registry

REGIONS = [{"name": "beijing", "jurisdiction": "cn"}, {"name": "shanghai", "jurisdiction": "cn"}]
BASIC_OF_GAME = "Basic " + base64.b64encode(b"game:guess-me").decode()
IMAGE = images.image(layers=[b"a layer"])
OTHER = images.image(layers=[b"of nobody"])


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[MeshSite]:
    async with mesh_site(tmp_path) as found:
        yield found


async def declare(site: MeshSite, *instances: dict[str, Any], **more: Any) -> None:
    listed = [{"account": "game", "region": "beijing", "domain": HUB} | it for it in instances]
    await site.apply({"regions": REGIONS, "instances": listed, **more})


async def closed(site: MeshSite, place: str, *, empty: bool = False) -> str:
    """A registry of our own that only `game` may read; its URL."""
    made = await site.registry(place, credentials=Credentials("game", "guess-me"))
    if not empty:
        endpoint = open_endpoint(place, made.url, Known("game", "guess-me"))
        try:
            await images.push(endpoint.registry(Side.DESTINATION), APP, Tag("v1"), IMAGE)
        finally:
            await endpoint.close()
    return made.url


async def test_basic_credentials_are_requested_forwarded_and_judged_by_the_place(site: MeshSite) -> None:
    await declare(site, {"name": "cn", "url": await closed(site, "cn")})
    async with gateway(site, "shanghai") as hub:
        for path in ("", f"{APP}/manifests/v1", f"{APP}/blobs/{IMAGE.blob_descriptors[0].digest}"):
            asked = await hub.ask(path)
            assert (asked.status, asked.code) == (401, "UNAUTHORIZED")
            assert asked.headers["WWW-Authenticate"] == 'Basic realm="regmesh",charset="UTF-8"'
            wrong = await hub.ask(path, Authorization="Basic " + base64.b64encode(b"game:no").decode())
            assert wrong.status == 401
            assert (await hub.ask(path, Authorization=BASIC_OF_GAME)).status == 200


async def test_a_replica_that_does_not_know_the_client_does_not_hide_a_place_that_does(
    site: MeshSite,
) -> None:
    near = await site.registry("cn@shanghai", credentials=Credentials("other", "users"))
    await declare(
        site,
        {"name": "cn", "url": await closed(site, "cn")},
        replicas=[{"instance": "cn", "region": "shanghai", "url": near.url}],
    )
    async with gateway(site, "shanghai") as hub:
        assert (await hub.ask(f"{APP}/manifests/v1", Authorization=BASIC_OF_GAME)).status == 200
        assert (await hub.ask(f"{APP}/manifests/v1")).status == 401
        missing = await hub.ask(f"{APP}/manifests/none", Authorization=BASIC_OF_GAME)
        assert (missing.status, missing.code) == (404, "MANIFEST_UNKNOWN")


async def test_what_the_first_account_refuses_is_not_served_from_another(
    site: MeshSite,
) -> None:
    """Both have game/app:v1. The other registry is open to all, and is not even asked."""
    await closed(site, "cn")
    team = await site.registry("team")
    await declare(
        site,
        {"name": "cn", "url": site.registries["cn"].url},
        {"name": "team", "account": "team", "url": team.url},
    )
    theirs = images.image(layers=[b"theirs"])
    await site.push("team", "v1", theirs)
    async with gateway(site, "shanghai", probe_interval=600) as hub:
        for authorization in ({}, {"Authorization": "Basic " + base64.b64encode(b"game:no").decode()}):
            for path in ("manifests/v1", f"manifests/{theirs.digest}", "tags/list"):
                refused = await hub.ask(f"{APP}/{path}", **authorization)
                assert (refused.status, refused.code) == (401, "UNAUTHORIZED")
        assert team.traffic.requests["GET", "manifest"] == 0
        assert team.traffic.requests["GET", "tags"] == 0
        ours = await hub.ask(f"{APP}/manifests/v1", Authorization=BASIC_OF_GAME)
        assert ours.body == IMAGE.manifest.body
        # What the first account says it has not, the second may have.
        other = await hub.ask(f"{APP}/manifests/{theirs.digest}", Authorization=BASIC_OF_GAME)
        assert other.body == theirs.manifest.body


async def test_nor_through_another_instance_of_the_account_that_refused(site: MeshSite) -> None:
    await closed(site, "cn")
    more, team = await site.registry("more"), await site.registry("team")
    await declare(
        site,
        {"name": "cn", "url": site.registries["cn"].url},
        {"name": "more", "url": more.url},
        {"name": "team", "account": "team", "url": team.url},
    )
    await site.push("team", "v1", images.image(layers=[b"theirs"]))
    await site.push("more", "v2", IMAGE)
    wrong = "Basic " + base64.b64encode(b"game:no").decode()
    async with gateway(site, "shanghai") as hub:
        assert (await hub.ask(f"{APP}/manifests/v1", Authorization=wrong)).status == 401
        assert (
            await hub.ask(f"{APP}/manifests/v2", Authorization=wrong)
        ).status == 200  # of the same account
        assert team.traffic.requests["GET", "manifest"] == 0


@pytest.mark.parametrize("status", [401, 403, 404, 503])
async def test_credentials_reach_no_registry_of_another_account(site: MeshSite, status: int) -> None:
    """Whatever that registry answers, first to probes and then to what the first account lacks."""
    await closed(site, "cn")
    async with stub() as other:
        other.says(status, WWW_Authenticate='Basic realm="evil"')
        await declare(
            site,
            {"name": "cn", "url": site.registries["cn"].url},
            {"name": "team", "account": "team", "url": other.url},
        )
        async with gateway(site, "shanghai") as hub:
            assert (await hub.ask("", Authorization=BASIC_OF_GAME)).status == 200
            for path in (f"{APP}/manifests/none", f"{APP}/manifests/{OTHER.digest}", "team/app/tags/list"):
                asked = len(other.asked)
                found = await hub.ask(path, Authorization=BASIC_OF_GAME)
                assert found.status == (403 if status == 401 else status)
                assert "WWW-Authenticate" not in found.headers
                assert len(other.asked) > asked
            await site.registries["cn"].stop()
            await hub.ask(f"{APP}/manifests/{OTHER.digest}", Authorization=BASIC_OF_GAME)
            await hub.ask("", Authorization=BASIC_OF_GAME)
        assert set(other.authorizations()) == {None}


async def test_the_first_account_owns_the_domain_even_where_none_of_its_registries_may_serve(
    site: MeshSite,
) -> None:
    async with stub() as other:
        other.says(401, WWW_Authenticate='Basic realm="evil"')
        await site.apply({
            "regions": [*REGIONS, {"name": "frankfurt", "jurisdiction": "global"}],
            "instances": [
                {"name": "cn", "account": "game", "region": "beijing", "url": "http://127.0.0.1:1", "domain": HUB},
                {"name": "eu", "account": "team", "region": "frankfurt", "url": other.url, "domain": HUB},
            ],
        })  # fmt: skip
        async with gateway(site, "frankfurt") as hub:
            for path in ("", f"{APP}/manifests/v1"):
                refused = await hub.ask(path, Authorization=BASIC_OF_GAME)
                assert (refused.status, refused.code) == (403, "DENIED")
                assert "WWW-Authenticate" not in refused.headers
        assert set(other.authorizations()) == {None}


async def test_no_token_request_is_forwarded_to_a_registry_of_another_account(site: MeshSite) -> None:
    async with token_registry(str(APP), IMAGE) as inner:
        await site.registry("cn")
        await declare(
            site,
            {"name": "cn", "url": site.registries["cn"].url},
            {"name": "team", "account": "team", "url": inner.url},
        )
        async with gateway(site, "shanghai") as hub:
            for authorization in ({}, {"Authorization": BASIC}):
                asked = await hub.ask(f"{APP}/manifests/v1", **authorization)
                assert (asked.status, asked.code) == (403, "DENIED")
                assert "WWW-Authenticate" not in asked.headers
                assert (await hub.ask("/token/team", **authorization)).status == 403
            form = {"grant_type": "password", "username": USER, "password": PASSWORD, "service": "x"}
            async with hub.session.post(
                f"{hub.url}/token/team", data=form, headers={"Host": HUB}
            ) as response:
                assert response.status == 403
        assert inner.forms == []


async def test_a_wrong_password_is_not_accepted_because_another_account_serves_everybody(
    site: MeshSite,
) -> None:
    await closed(site, "cn")
    await site.registry("team")
    await declare(
        site,
        {"name": "cn", "url": site.registries["cn"].url},
        {"name": "team", "account": "team", "url": site.registries["team"].url},
    )
    wrong = "Basic " + base64.b64encode(b"game:no").decode()
    async with gateway(site, "shanghai") as hub:
        assert (await hub.ask("", Authorization=wrong)).status == 401
        assert (await hub.ask("", Authorization=BASIC_OF_GAME)).status == 200


async def test_an_internal_error_in_the_middle_of_a_body_cuts_it(
    site: MeshSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    cn = await site.registry("cn")
    await declare(site, {"name": "cn", "url": cn.url})
    big = images.image(layers=[b"x" * 3_000_000])
    await site.push("cn", "v1", big)
    pieces = 0

    async def read(delivery: ResponseDelivery) -> bytes:
        nonlocal pieces
        pieces += 1
        if pieces == 3:
            raise ValueError("a mistake")
        return await delivery.served.response.content.readany()

    monkeypatch.setattr(ResponseDelivery, "_read", read)
    async with gateway(site, "shanghai") as hub:
        with pytest.raises(ClientError):
            await hub.ask(f"{APP}/blobs/{big.blob_descriptors[1].digest}")
    assert pieces == 3


def parameters(answer: Answer) -> dict[str, str]:
    scheme, _, rest = answer.headers["WWW-Authenticate"].partition(" ")
    assert scheme == "Bearer"
    return {
        name: re.sub(r"\\(.)", r"\1", value) for name, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', rest)
    }


async def with_token(
    hub: GatewaySite, asked: Answer, authorization: str | None, *, form: bool = False
) -> Answer:
    """What the gateway's token endpoint answers to a client that follows the challenge."""
    challenge = parameters(asked)
    head = f"http://{HUB}"
    assert challenge["realm"].startswith(f"{head}/token/")
    path = challenge["realm"].removeprefix(head)
    named = {"service": challenge["service"], "scope": challenge["scope"]}
    if form:
        data = named | {"grant_type": "password", "username": USER, "password": PASSWORD}
        async with hub.session.post(hub.url + path, data=data, headers={"Host": HUB}) as response:
            return Answer(response.status, response.headers, await response.read())
    headers = {"Host": HUB} | ({"Authorization": authorization} if authorization else {})
    async with hub.session.get(hub.url + path, params=named, headers=headers) as response:
        return Answer(response.status, response.headers, await response.read())


@pytest.mark.parametrize("apart", [False, True], ids=["own host", "a token server of its own"])
@pytest.mark.parametrize("form", [False, True], ids=["GET", "POST"])
async def test_tokens_work_although_the_realm_is_an_internal_address(
    site: MeshSite, apart: bool, form: bool
) -> None:
    async with token_registry(str(APP), IMAGE, apart=apart) as inner:
        await declare(site, {"name": "cn", "url": inner.url})
        realms = (inner.tokens.url,) if apart else ()
        async with gateway(site, "shanghai", trust=Trust(realms=realms)) as hub:
            asked = await hub.ask(f"{APP}/manifests/v1")
            assert (asked.status, asked.code) == (401, "UNAUTHORIZED")
            assert parameters(asked)["service"] == 'inner, "one"'
            assert (await with_token(hub, asked, None)).status == 401
            given = await with_token(hub, asked, BASIC, form=form)
            assert given.status == 200, given.body
            token = re.search(rb'"token": ?"(\w+)"', given.body)
            assert token is not None
            bearer = f"Bearer {token[1].decode()}"
            for path in (f"{APP}/manifests/v1", f"{APP}/blobs/{IMAGE.blob_descriptors[1].digest}"):
                assert (await hub.ask(path, Authorization=bearer)).status == 200
            assert (await hub.ask(f"{APP}/manifests/none", Authorization=bearer)).status == 404
        if form:
            assert [it["username"] for it in inner.forms] == [USER]


async def test_tokens_work_for_clients_of_another_host_name_such_as_containerd(site: MeshSite) -> None:
    async with token_registry(str(APP), IMAGE) as inner:
        await declare(site, {"name": "cn", "url": inner.url})
        async with gateway(site, "shanghai") as hub:
            here = hub.url.removeprefix("http://")
            asked = await hub.ask(f"{APP}/manifests/v1?ns={HUB}", Host=here)
            realm = parameters(asked)["realm"]
            assert realm == f"{hub.url}/token/cn"
            query = {"service": "x", "scope": f"repository:{APP}:pull"}
            async with hub.session.get(realm, params=query, headers={"Authorization": BASIC}) as response:
                assert response.status == 200
        async with gateway(site, "shanghai", GatewayOptions(domain="other.example.com")) as other:
            assert (await other.ask("/token/cn")).status == 404


async def test_another_gateway_than_the_challenging_one_serves_the_token(site: MeshSite) -> None:
    async with token_registry(str(APP), IMAGE) as inner:
        await declare(site, {"name": "cn", "url": inner.url})
        async with gateway(site, "shanghai") as one, gateway(site, "shanghai") as other:
            assert (await with_token(other, await one.ask(f"{APP}/manifests/v1"), BASIC)).status == 200


async def test_credentials_go_to_no_realm_that_the_operator_did_not_name(site: MeshSite) -> None:
    async with token_registry(str(APP), IMAGE, apart=True) as inner:
        await declare(site, {"name": "cn", "url": inner.url})
        async with gateway(site, "shanghai") as hub:
            asked = await hub.ask(f"{APP}/manifests/v1", Authorization=BASIC)
            assert asked.status == 401
            assert "WWW-Authenticate" not in asked.headers
            refused = await hub.ask("/token/cn", Authorization=BASIC)
            assert refused.status == 503
        assert inner.tokens.asked == []


async def test_the_realm_has_the_clients_scheme_when_a_trusted_proxy_forwards_it(
    site: MeshSite,
) -> None:
    async with token_registry(str(APP), IMAGE) as inner:
        await declare(site, {"name": "cn", "url": inner.url})
        for options, scheme in ((GatewayOptions(), "http"), (GatewayOptions(behind_proxy=True), "https")):
            async with gateway(site, "shanghai", options) as hub:
                asked = await hub.ask(f"{APP}/manifests/v1", X_Forwarded_Proto="https", Host=f"{HUB}:444")
                assert parameters(asked)["realm"] == f"{scheme}://{HUB}:444/token/cn"


async def test_an_invalid_host_header_makes_no_url(site: MeshSite) -> None:
    async with token_registry(str(APP), IMAGE) as inner:
        await declare(site, {"name": "cn", "url": inner.url})
        async with gateway(site, "shanghai", GatewayOptions(domain=HUB)) as hub:
            refused = await hub.ask(f"{APP}/manifests/v1", Host='x",evil="y')
            assert (refused.status, refused.code) == (400, "UNSUPPORTED")


async def test_a_redirect_is_returned_or_followed_without_credentials_under_the_egress_rules(
    site: MeshSite,
) -> None:
    blob = IMAGE.blob_descriptors[1]
    async with stub() as store, stub() as registry:
        store.says(200, IMAGE.blobs[blob.digest])
        await declare(site, {"name": "cn", "url": registry.url})
        registry.says(307, Location="https://1.1.1.1/signed?x=%2F")
        async with gateway(site, "shanghai") as hub:
            passed = await hub.ask(f"{APP}/blobs/{blob.digest}", Authorization=BASIC)
            assert (passed.status, passed.headers["Location"]) == (307, "https://1.1.1.1/signed?x=%2F")
            registry.says(307, Location=f"{store.url}/signed")
            refused = await hub.ask(f"{APP}/blobs/{blob.digest}", Authorization=BASIC)
            assert (refused.status, store.asked) == (503, [])
        async with gateway(site, "shanghai", trust=Trust(networks=("127.0.0.0/8",))) as hub:
            followed = await hub.ask(f"{APP}/blobs/{blob.digest}", Authorization=BASIC)
            assert (followed.status, followed.body) == (200, IMAGE.blobs[blob.digest])
        assert store.authorizations() == [None]


async def test_no_internal_header_and_no_cookie_passes_in_either_direction(
    site: MeshSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGMESH_SECRET_CN", "mesh:password-of-the-mesh")
    async with stub() as registry:

        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(body=b"{}", headers={"Set-Cookie": "a=b", "X-Inner": "host-7"})

        registry.answer = answer
        await declare(site, {"name": "cn", "url": registry.url, "credentials": "CN"})
        async with gateway(site, "shanghai") as hub:
            found = await hub.ask(
                f"{APP}/tags/list", Cookie="c=d", X_Forwarded_For="1.2.3.4", Authorization=BASIC
            )
            await hub.ask("")
        assert {"Set-Cookie", "X-Inner"}.isdisjoint(found.headers)
        seen = [it.headers for it in registry.asked if it.path != "/v2/"]
        assert [(it.get("Authorization"), it.get("Cookie"), it.get("X-Forwarded-For")) for it in seen] == [
            (BASIC, None, None)
        ]
        assert {it.headers.get("Authorization") for it in registry.asked if it.path == "/v2/"} == {None}


async def test_the_base_endpoint_requires_credentials_when_a_registry_does_and_accepts_those_of_one(
    site: MeshSite,
) -> None:
    team = await site.registry("team", credentials=Credentials("team", "other"))
    public = await site.registry("public")
    await declare(
        site,
        {"name": "public", "url": public.url},
        {"name": "cn", "url": await closed(site, "cn")},
        {"name": "team", "url": team.url},
    )
    async with gateway(site, "shanghai") as hub:
        assert (await hub.ask("")).status == 401
        of_team = "Basic " + base64.b64encode(b"team:other").decode()
        assert (await hub.ask("", Authorization=of_team)).status == 200
        assert (await hub.ask(f"{APP}/manifests/v1", Authorization=BASIC_OF_GAME)).status == 200
        await public.stop()
        assert (await hub.ask("", Authorization=of_team)).status == 200
        unknown = await hub.ask("", Authorization="Basic " + base64.b64encode(b"nobody:x").decode())
        assert (unknown.status, unknown.code) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize(
    ("target", "passed"),
    [
        ("https://8.8.8.8/x", True), ("https://1.1.1.1/x", False), ("https://1.1.1.1:444/x", False),
        ("https://10.0.0.1/x", False), ("https://127.0.0.1/x", False), ("https://[fd00::1]/x", False),
        ("https://localhost/x", False), ("https://no-such-host.invalid/x", False),
    ],
)  # fmt: skip
async def test_a_client_is_redirected_to_public_hosts_only_and_never_to_the_place_itself(
    target: str, passed: bool
) -> None:
    upstream = UpstreamClient(
        "cn", URL("https://1.1.1.1"), networks=parse_networks(["10.0.0.0/8"]), realms=frozenset()
    )
    try:
        assert await upstream.is_for_clients(URL(target)) is passed
    finally:
        await upstream.close()


async def test_a_blob_of_unknown_length_is_complete_or_cut(site: MeshSite) -> None:
    broken = False

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.json_response({})
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"x" * 100_000)
        if broken:
            assert request.transport is not None
            request.transport.abort()
        return response

    async with stub() as registry:
        registry.answer = answer
        await declare(site, {"name": "cn", "url": registry.url})
        async with gateway(site, "shanghai") as hub:
            whole = await hub.ask(f"{APP}/blobs/{IMAGE.blob_descriptors[1].digest}")
            assert (whole.status, whole.body) == (200, b"x" * 100_000)
            broken = True
            with pytest.raises(ClientError):
                await hub.ask(f"{APP}/blobs/{IMAGE.blob_descriptors[1].digest}")
