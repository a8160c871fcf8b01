"""What people type that is not quite right: each command against a mesh in the test's process."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from structlog.testing import capture_logs

from mesh.node import cli, commands_sync_log
from mesh.node.output import Format
from mesh.node.remote import Remote, Unanswered
from tests import images
from tests.mesh_site import MeshSite, mesh_site, until


class Done(NamedTuple):
    code: int
    out: str
    err: str


Terminal = Callable[..., Awaitable[Done]]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[MeshSite]:
    async with mesh_site(tmp_path) as found:
        await found.apply(
            {
                "regions": [{"name": "beijing", "jurisdiction": "cn"}],
                "instances": [
                    {"name": name, "account": "game", "region": "beijing", "url": f"http://127.0.0.1:{port}"}
                    for name, port in (("cn", 1), ("spare", 2))
                ],
                "rules": [{"name": "two", "source": "cn", "destination": "spare"}],
            }
        )
        yield found


@pytest.fixture
def terminal(
    site: MeshSite, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Terminal]:
    monkeypatch.setenv("REGMESH_SERVER", site.url)

    async def typed(*arguments: str) -> Done:
        code = await asyncio.to_thread(cli.run, list(arguments))
        return Done(code, *capsys.readouterr())

    with capture_logs():  # of the mesh, which shares this process and its stdout
        yield typed


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["get", "rule", "../instances/spare"], 1),
        (["get", "rule", "two#x"], 1),
        (["get", "rule", "two?x"], 1),
        (["get", "rule", "%74wo"], 1),
        (["get", "rule", ".."], 2),
        (["get", "rule", ""], 2),
        (["delete", "webhook", "../rules/two"], 1),
        (["delete", "rule", "two#x"], 1),
        (["delete", "rule", "%74wo"], 1),
        (["stop", "../executions/x"], 1),
        (["retry", "a/b"], 1),
        (["retry", "..", "--close"], 2),
        (["where", "cn/../app:v1"], 2),
        (["where", "../cn/app:v1"], 2),
        (["explain", "cn//app:v1"], 2),
    ],
)
async def test_a_name_is_one_name_whatever_it_holds(
    site: MeshSite, terminal: Terminal, arguments: list[str], code: int
) -> None:
    done = await terminal(*arguments)
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done
    assert "/api/v1" not in done.err
    assert [it["name"] for it in (await site.get("rules"))["items"]] == ["two"]


@pytest.mark.parametrize("kind", ["agent", "parked", "dead-letters"])
async def test_what_is_listed_and_not_there_is_told(terminal: Terminal, kind: str) -> None:
    done = await terminal("get", kind, "nobody", "-o", "json")
    assert (done.code, done.out) == (1, "")
    assert "'nobody'; see `regmesh get " in done.err


async def test_one_agent_is_shown_as_itself(site: MeshSite, terminal: Terminal) -> None:
    await site.start_agent("beijing")

    async def heard() -> list[str]:
        return [it["agent"] for it in (await site.get("agents"))["items"]]

    (name,) = await until(heard)
    done = await terminal("get", "agent", name, "-o", "json")
    assert (done.code, json.loads(done.out)["agent"]) == (0, name)


async def test_all_that_is_declared_is_shown_however_much_it_is(site: MeshSite, terminal: Terminal) -> None:
    names = [f"r{number:04}" for number in range(1001)]
    await site.apply({"regions": [{"name": name, "jurisdiction": "cn"} for name in names]})
    shown = json.loads((await terminal("get", "regions", "-o", "json")).out)
    assert [it["name"] for it in shown] == ["beijing", *names]


@pytest.mark.parametrize("server", ["", "nowhere", "ftp://x", "http://", "http://[::1"])
async def test_a_server_that_is_no_url_is_wrong_use(terminal: Terminal, server: str) -> None:
    done = await terminal("get", "rules", "--server", server)
    assert (done.code, "use http://HOST:PORT" in done.err, done.err.count("\n")) == (2, True, 1), done


async def test_a_password_in_the_servers_url_is_not_shown(terminal: Terminal) -> None:
    done = await terminal("get", "rules", "--server", "http://anna:secret@127.0.0.1:1")
    assert (done.code, "127.0.0.1:1 does not answer" in done.err, "secret" in done.err) == (1, True, False)


async def test_trying_again_what_failed_of_a_rule_that_is_not_there_is_told(terminal: Terminal) -> None:
    done = await terminal("retry", "--failed", "--rule", "tow")
    assert (done.code, done.out, "is named 'tow'" in done.err) == (2, "", True), done
    assert (await terminal("retry", "--failed", "--rule", "two")).out == "nothing to try again\n"


async def test_a_gateway_that_is_no_url_makes_no_file(terminal: Terminal) -> None:
    done = await terminal("nearby", "hosts-toml", "--region", "beijing", "--gateway", "nowhere")
    assert (done.code, done.out, "use http://HOST:PORT" in done.err) == (2, "", True), done


def silent_at_times(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Every second question is asked while control starts again."""
    asked = count()

    async def ask(*parts: Any, **more: Any) -> Any:
        if next(asked) % 2:
            raise Unanswered("control does not answer")
        return await call(*parts, **more)

    return ask


async def test_who_waits_for_an_execution_waits_while_control_starts_again(
    site: MeshSite, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("cn", "spare"):
        await site.registry(place)
        url = site.registries[place].url
        declared = {"name": place, "account": "game", "region": "beijing", "url": url}
        await site.apply({"instances": [declared]})
    monkeypatch.setattr(Remote, "_call", silent_at_times(Remote._call))
    done = await terminal("sync", "two", "--wait")
    assert (done.code, "Succeed: 0 tags" in done.err) == (0, True), done


async def test_who_follows_the_log_misses_nothing_of_a_burst(
    site: MeshSite,
    terminal: Terminal,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However few entries are shown at first, and however many come between two looks."""
    for place in ("cn", "spare"):
        await site.registry(place)
    await site.apply(
        {
            "instances": [
                {"name": name, "account": "game", "region": "beijing", "url": site.registries[name].url}
                for name in ("cn", "spare")
            ]
        }
    )
    await site.start_agent("beijing")
    remote = site.remote
    monkeypatch.setattr(remote, "_call", silent_at_times(remote._call))
    tags = [f"v{number}" for number in range(8)]
    shown = ""

    async def all_ended() -> bool:
        return len(await site.logs(status="Succeed")) == len(tags)

    async def all_shown() -> bool:
        nonlocal shown
        shown += capsys.readouterr().out
        return all(f"spare/game/app:{tag} " in shown for tag in tags)

    image = images.image(layers=[b"one"])
    await site.push("cn", tags[0], image)
    following = asyncio.create_task(
        commands_sync_log._logs(remote, {"limit": "1"}, 1, Format.TABLE, follow=True)
    )

    async def begun() -> bool:
        nonlocal shown
        shown += capsys.readouterr().out
        return f"spare/game/app:{tags[0]} " in shown

    try:
        await until(begun)
        for tag in tags[1:]:
            await site.push("cn", tag, image)
        await until(all_ended)
        await until(all_shown)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert [shown.count(f"spare/game/app:{tag} ") for tag in tags] == [1] * len(tags)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["get", "rule", "tow"], "rule/tow is not declared; did you mean 'two'?"),
        (["delete", "instance", "sparse"], "instance/sparse is not declared; did you mean 'spare'?"),
        (["get", "webhook", "ci"], "webhook/ci is not declared; `regmesh get webhooks` shows what is"),
        (["where", "sparse/app:v1"], "no such instance is declared; did you mean 'spare'?"),
        (["explain", "sparse/app:v1"], "no such instance is declared; did you mean 'spare'?"),
        (["wait", "other/app:v1"], "no such instance is declared; `regmesh get instances` shows what is"),
    ],
)
async def test_a_wrong_name_is_told_with_what_was_meant(
    terminal: Terminal, arguments: list[str], what: str
) -> None:
    assert await terminal(*arguments) == (1, "", f"regmesh: {what}\n")
