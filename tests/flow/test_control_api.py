"""The HTTP API on a real server: what is declared, how errors are reported, who may call it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import ClientSession, web
from prometheus_client import CollectorRegistry

from mesh import health
from mesh.control.http.access import ApiAccess, host_name
from mesh.metrics import Metrics
from schemas import topics
from schemas.names import Region
from tests.support.control_site import MESH, Site, completion, control_site, until


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with control_site(tmp_path) as opened:
        yield opened


def with_rule(**reported: object) -> dict[str, Any]:
    return MESH | {"rules": [MESH["rules"][0] | reported]}


async def test_apply_reports_what_changed(site: Site):
    status, first = await site.call("POST", "/api/v1/apply", MESH)
    assert status == 200
    assert [(item["key"], item["change"], item["rev"]) for item in first["items"]] == [
        ("region/beijing", "created", 0), ("region/frankfurt", "created", 1), ("instance/game-cn", "created", 2),
        ("instance/game-eu", "created", 3), ("rule/release-to-eu", "created", 4),
    ]  # fmt: skip
    assert site.state.rev == 4  # what was answered holds here already
    _, again = await site.call("POST", "/api/v1/apply", MESH)
    assert {(item["change"], item["rev"]) for item in again["items"]} == {("unchanged", 4)}
    _, changed = await site.call("POST", "/api/v1/apply", with_rule(enabled=False))
    assert [item["change"] for item in changed["items"]] == ["unchanged"] * 4 + ["changed"]
    assert [item.get("fields") for item in changed["items"]] == [None] * 4 + [["enabled"]]
    assert site.state.rev == 5


async def test_a_dry_run_changes_nothing(site: Site):
    _, reported = await site.call("POST", "/api/v1/apply?dry_run=true", MESH)
    assert {(item["change"], item["rev"]) for item in reported["items"]} == {("created", None)}
    assert site.state.rev == -1
    region = Region("beijing")
    assert topics.events(region) in await site.log.missing(topics.all_topics([region]))


async def test_all_problems_at_once_and_nothing_half_applied(site: Site):
    wrong = with_rule(source="game-cm", filters=[{"type": "nam", "value": "x"}], conflict="lww")
    status, reported = await site.call("POST", "/api/v1/apply", wrong)
    assert status == 400
    assert reported["error"]["code"] == "invalid_document"
    problems = {problem["path"]: problem["message"] for problem in reported["error"]["problems"]}
    assert "did you mean 'game-cn'" in problems["rules[0].source"]
    assert "did you mean 'name'" in problems["rules[0].filters[0].type"]
    assert "planned but not built" in problems["rules[0].conflict"]
    assert list(site.state.things()) == []


async def test_a_new_region_has_its_topics_before_it_is_declared(site: Site):
    await site.call("POST", "/api/v1/apply", MESH)
    assert list(await site.log.missing(topics.all_topics([Region("beijing"), Region("frankfurt")]))) == []


async def test_writers_take_turns(site: Site):
    await site.call("POST", "/api/v1/apply", MESH)
    bodies = [{"name": f"r{n}", "source": "game-cn", "destination": "game-eu"} for n in range(20)]
    answers = await asyncio.gather(
        *(site.call("PUT", f"/api/v1/rules/{body['name']}", body) for body in bodies)
    )
    assert {status for status, _ in answers} == {201}
    _, listed = await site.call("GET", "/api/v1/rules?limit=1000")
    assert len(listed["items"]) == 21


async def test_put_get_delete(site: Site):
    await site.call("POST", "/api/v1/apply", MESH)
    rule = {"name": "charts", "source": "game-cn", "destination": "game-eu", "filters": []}
    assert (await site.call("PUT", "/api/v1/rules/charts", rule))[0] == 201
    status, shown = await site.call("PUT", "/api/v1/rules/charts", rule | {"enabled": False})
    assert (status, shown["enabled"]) == (200, False)
    assert await site.call("GET", "/api/v1/rules/charts") == (200, shown)
    assert (await site.call("PUT", "/api/v1/rules/charts", shown))[0] == 200  # what is got can be put
    assert await site.call("DELETE", "/api/v1/rules/charts") == (204, None)
    assert (await site.call("GET", "/api/v1/rules/charts"))[0] == 404
    status, reported = await site.call("DELETE", "/api/v1/rules/charts")
    assert (status, reported["error"]["code"]) == (404, "not_found")


async def test_an_instance_that_was_got_can_be_put(site: Site):
    await site.call("POST", "/api/v1/apply", MESH)
    _, shown = await site.call("GET", "/api/v1/instances/game-cn")
    assert shown["state"] is None
    assert (await site.call("PUT", "/api/v1/instances/game-cn", shown))[0] == 200
    assert site.state.rev == 4


async def test_what_is_used_is_not_deleted(site: Site):
    await site.call("POST", "/api/v1/apply", MESH)
    for path, user in (("instances/game-cn", "rule/release-to-eu"), ("regions/beijing", "instance/game-cn")):
        status, reported = await site.call("DELETE", f"/api/v1/{path}")
        assert (status, reported["error"]["code"]) == (409, "still_used")
        assert user in reported["error"]["message"]


@pytest.mark.parametrize(
    ("body", "path", "message"),
    [
        ({"name": "other", "source": "game-cn", "destination": "game-eu"}, "name", "must be 'charts'"),
        ({"source": "game-cn"}, "destination", "is required"),
        ({"source": "game-cn", "destination": "nowhere"}, "destination", "no instance is named"),
        (
            {"source": "game-cn", "destination": "game-eu", "filters": [{"type": "tag", "value": "re:("}]},
            "filters[0].value", "is not a pattern",
        ),
        ([], "", "must be a JSON object"),
    ],
)  # fmt: skip
async def test_a_put_that_is_wrong(site: Site, body: object, path: str, message: str):
    await site.call("POST", "/api/v1/apply", MESH)
    status, reported = await site.call("PUT", "/api/v1/rules/charts", body)
    assert status == 400
    (problem,) = reported["error"]["problems"]
    assert problem["path"] == path
    assert message in problem["message"]


async def test_lists_are_paged_by_name(site: Site):
    regions = [{"name": f"region-{n}", "jurisdiction": "global"} for n in range(5)]
    await site.call("POST", "/api/v1/apply", {"regions": regions})
    names, cursor = [], ""
    while True:
        _, page = await site.call("GET", f"/api/v1/regions?limit=2{cursor}")
        names += [item["name"] for item in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert names == [region["name"] for region in regions]


async def test_the_sync_log_is_paged_and_filtered(site: Site):
    await site.call("POST", "/api/v1/apply", MESH)
    await site.report(*(completion(n) for n in range(5)))

    async def all_there() -> bool:
        return len(await site.logs()) == 5

    await until(all_there)
    _, first = await site.call("GET", "/api/v1/logs?limit=3&rule=release-to-eu&status=Succeed,Failed")
    _, rest = await site.call("GET", f"/api/v1/logs?limit=3&cursor={first['next']}")
    assert [entry["lag_ms"] for entry in first["items"] + rest["items"]] == [4000, 3000, 2000, 1000, 0]
    assert rest["next"] is None
    for wrong, name in (
        ("limit=0", "limit"),
        ("rul=x", "rul"),
        ("rule=a&rule=b", "rule"),
        ("cursor=x", "cursor"),
    ):
        status, reported = await site.call("GET", f"/api/v1/logs?{wrong}")
        assert (status, reported["error"]["code"]) == (400, "invalid_input")
        assert reported["error"]["message"].startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/nothing", 404), ("GET", "/nothing", 404), ("GET", "/api/v1/rules/a/b", 404),
        ("POST", "/api/v1/rules", 405), ("DELETE", "/api/v1/logs", 405), ("GET", "/api/v1/replicators", 404),
    ],
)  # fmt: skip
async def test_what_is_not_there_is_reported_in_json(site: Site, method: str, path: str, status: int):
    got, reported = await site.call(method, path)
    assert got == status
    assert set(reported["error"]) == {"code", "message"}


async def test_a_document_of_thousands_of_rules_is_declared(site: Site) -> None:
    filters = [{"type": "name", "value": f"{'team-' * 40}{{}}/**"}]
    rules = [
        {
            "name": f"rule-{number}", "source": "game-cn", "destination": "game-eu",
            "filters": [{**filters[0], "value": filters[0]["value"].format(number)}],
        }
        for number in range(4000)
    ]  # fmt: skip
    assert len(orjson.dumps(rules)) > 1 << 20
    status, answer = await site.call("POST", "/api/v1/apply", {**MESH, "rules": rules})
    assert (status, len(answer.get("items", []))) == (200, 4000 + 4), answer.get("error")
    assert len(site.state.rules()) == 4000


async def test_only_json_of_a_bounded_size(site: Site):
    form = {"Content-Type": "text/plain"}
    assert (await site.call("POST", "/api/v1/apply", MESH, headers=form))[0] == 415
    assert (await site.call("PUT", "/api/v1/rules/x", {}, headers=form))[0] == 415
    status, reported = await site.call("POST", "/api/v1/apply", raw=b"{")
    assert (status, reported["error"]["code"]) == (400, "invalid_input")
    status, reported = await site.call("POST", "/api/v1/apply", raw=b" " * ((16 << 20) + 1))
    assert (status, reported["error"]["code"]) == (413, "too_large")
    status, reported = await site.call("POST", "/api/v1/apply", raw=b"[" * 100_000)
    assert status == 400
    assert list(site.state.things()) == []


async def test_only_by_its_own_name(site: Site):
    for host, status in (
        ("evil.example", 403), ("evil.example:8080", 403), ("127.0.0.1.evil.example", 403), ("", 403),
        ("localhost.evil.example", 403), ("10.evil", 403), ("[::1", 403),
        ("localhost:8080", 200), ("LOCALHOST", 200), ("127.0.0.1", 200), ("[::1]:8080", 200), ("127.8.9.1", 200),
        ("192.0.2.7:8080", 200),  # an address is no name that a page could resolve to another one
    ):  # fmt: skip
        assert (await site.call("GET", "/api/v1/rules", headers={"Host": host}))[0] == status, host


async def test_an_error_of_ours_reports_nothing_but_where_to_look(
    site: Site, capsys: pytest.CaptureFixture[str]
):
    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("password=hunter2")

    site.control._declare.apply = broken
    status, reported = await site.call("POST", "/api/v1/apply", {})
    assert (status, reported["error"]["code"]) == (500, "internal")
    assert "hunter2" not in orjson.dumps(reported).decode()
    assert "api_internal" in capsys.readouterr().out


async def test_a_log_that_is_away_is_reported_with_when_to_come_again(site: Site):
    await site.log.close()
    async with site.http.put(f"{site.url}/api/v1/regions/x", json={"jurisdiction": "y"}) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert (await answer.json())["error"]["code"] == "log_unavailable"


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"])
async def test_a_caller_behind_a_proxy_is_not_on_this_machine(site: Site, header: str):
    status, reported = await site.call("GET", "/api/v1/rules", headers={header: "192.0.2.7"})
    assert (status, reported["error"]["code"]) == (403, "forbidden")
    assert "--api-open" in reported["error"]["message"]


async def test_an_open_api_answers_proxies_under_the_names_it_was_given(tmp_path: Path):
    access = ApiAccess(is_open=True, hosts=frozenset({"regmesh.example.com"}))
    async with control_site(tmp_path, access=access) as site:
        proxy = {"X-Forwarded-For": "192.0.2.7"}
        for host, status in (
            ("regmesh.example.com", 200), ("REGMESH.example.com:8443", 200), ("other.example.com", 403),
            ("a.regmesh.example.com", 403),
        ):  # fmt: skip
            answer = await site.call("GET", "/api/v1/rules", headers=proxy | {"Host": host})
            assert answer[0] == status, host
            assert status == 200 or "--api-host" in answer[1]["error"]["message"]


def test_hosts():
    assert host_name("a.b:80") == "a.b"
    assert host_name("[::1") == ""


async def test_health_readiness_and_metrics():
    metrics, reasons = Metrics(CollectorRegistry()), ["the table is behind"]
    metrics.stale_stamps.inc()
    app = web.Application()
    health.add_routes(app, metrics, lambda: reasons)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with ClientSession() as http:
        assert (await http.get(f"{url}/healthz")).status == 200
        behind = await http.get(f"{url}/readyz")
        assert (behind.status, (await behind.json())["reasons"]) == (503, ["the table is behind"])
        reasons.clear()
        assert (await http.get(f"{url}/readyz")).status == 200
        exposed = await http.get(f"{url}/metrics")
        assert "regmesh_stale_stamps_total 1.0" in await exposed.text()
        assert exposed.content_type == "text/plain"
    await runner.cleanup()


async def test_instances_keep_the_order_in_which_they_are_listed(site: Site) -> None:
    """Where they share a domain the first wins: neither a restart nor a change of one may turn it round."""
    from mesh.rules.state import MeshState

    regions = [{"name": "here", "jurisdiction": "x"}]
    shared = {"account": "a", "region": "here", "domain": "hub.example.com"}
    both = [
        {"name": name, "url": f"http://127.0.0.1:{port}", **shared} for port, name in enumerate("zya", 5001)
    ]
    await site.call("POST", "/api/v1/apply", {"regions": regions, "instances": both})

    def order(state: MeshState) -> list[str]:
        return [it.name for it in state.instances_of("hub.example.com")]

    await site.call("PUT", "/api/v1/instances/z", both[0] | {"kind": "zot"})
    assert order(site.state) == ["z", "y", "a"]
    swapped = {"instances": [both[2], both[0]]}
    _, reported = await site.call("POST", "/api/v1/apply", swapped)
    assert [(it["key"], it["change"]) for it in reported["items"]] == [
        ("instance/a", "changed"), ("instance/z", "changed"),
    ]  # fmt: skip
    assert [it["fields"] for it in reported["items"]] == [["position"], ["kind", "position"]]
    assert order(site.state) == ["a", "y", "z"]
    _, reported = await site.call("POST", "/api/v1/apply", swapped)
    assert {it["change"] for it in reported["items"]} == {"unchanged"}
    _, shown = await site.call("GET", "/api/v1/instances/y")
    assert shown["position"] == 1
    read_anew = MeshState()
    async for batch in site.log.follow("mesh.state"):
        for record in batch.records:
            read_anew.apply(record.key, record.value, record.offset)
        if read_anew.rev == site.state.rev:
            break
    assert order(read_anew) == ["a", "y", "z"]
