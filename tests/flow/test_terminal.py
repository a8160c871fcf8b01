"""Wrong and unusual input to each command, against a mesh in the process of the test."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from mesh.node.cli import executions as cli_executions
from mesh.node.cli import logs as cli_logs
from mesh.node.cli.control_client import ApiUnreachable, ControlClient
from mesh.node.cli.output import Format
from schemas.names import Tag
from tests.support import images
from tests.support.mesh_site import APP, MeshSite, client, mesh_site, until
from tests.support.terminal import Terminal, terminal_at


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
    with terminal_at(site.url, capsys, monkeypatch) as made:
        yield made


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
async def test_a_name_stays_one_path_segment(
    site: MeshSite, terminal: Terminal, arguments: list[str], code: int
) -> None:
    done = await terminal(*arguments)
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done
    assert "/api/v1" not in done.err
    assert [it["name"] for it in (await site.get("rules"))["items"]] == ["two"]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["get", "agent", "none"], "there is no agent none; `regmesh get agents` shows them"),
        (["get", "agent/none"], "there is no agent none; `regmesh get agents` shows them"),
        (["get", "parked", "none"], "no task none is parked; `regmesh get parked` shows them"),
        (["retry", "none", "--close"], "no task none is parked; `regmesh get parked` shows them"),
        (
            ["get", "dead-letter", "none"],
            "there is no dead letter none; `regmesh get dead-letters` shows them",
        ),
        (
            ["delete", "dead-letter", "none"],
            "there is no dead letter none; `regmesh get dead-letters` shows them",
        ),
        (["get", "execution", "none"], "there is no execution none; `regmesh get executions` shows them"),
        (["stop", "none"], "there is no execution none; `regmesh get executions` shows them"),
        (["retry", "none"], "no task none has ended; `regmesh logs -o wide` shows their ids"),
        (["retry", "--failed", "--rule", "tow"], "no rule or replica is named 'tow'; did you mean 'two'?"),
        (["sync", "tow"], "no rule or replica is named 'tow'; did you mean 'two'?"),
    ],
)
async def test_a_missing_item_is_reported_alike_by_all_commands(
    terminal: Terminal, arguments: list[str], what: str
) -> None:
    """The exit code is 1: 2 is for input that no mesh could accept."""
    assert await terminal(*arguments) == (1, "", f"regmesh: {what}\n")


async def test_one_agent_is_shown_as_itself(site: MeshSite, terminal: Terminal) -> None:
    await site.start_agent("beijing")

    async def is_alive() -> list[str]:
        return [it["agent"] for it in (await site.get("agents"))["items"]]

    (name,) = await until(is_alive)
    done = await terminal("get", "agent", name, "-o", "json")
    assert (done.code, json.loads(done.out)["agent"]) == (0, name)


async def test_get_shows_more_declarations_than_fit_on_a_page(site: MeshSite, terminal: Terminal) -> None:
    names = [f"r{number:04}" for number in range(1001)]
    await site.apply({"regions": [{"name": name, "jurisdiction": "cn"} for name in names]})
    shown = json.loads((await terminal("get", "regions", "-o", "json")).out)
    assert [it["name"] for it in shown] == ["beijing", *names]


@pytest.mark.parametrize("server", ["", "nowhere", "ftp://x", "http://", "http://[::1"])
async def test_a_server_that_is_not_a_url_is_wrong_use(terminal: Terminal, server: str) -> None:
    done = await terminal("get", "rules", "--server", server)
    assert (done.code, "use http://HOST:PORT" in done.err, done.err.count("\n")) == (2, True, 1), done


async def test_a_password_in_the_servers_url_is_not_shown(terminal: Terminal) -> None:
    done = await terminal("get", "rules", "--server", "http://anna:secret@127.0.0.1:1")
    assert (done.code, "127.0.0.1:1 does not answer" in done.err, "secret" in done.err) == (1, True, False)


async def test_a_retry_for_an_unknown_rule_is_an_error(terminal: Terminal) -> None:
    done = await terminal("retry", "--failed", "--rule", "tow")
    assert (done.code, done.out, "is named 'tow'" in done.err) == (1, "", True), done
    assert (await terminal("retry", "--failed", "--rule", "two")).out == "nothing to retry\n"


async def test_a_gateway_that_is_not_a_url_prints_no_file(terminal: Terminal) -> None:
    done = await terminal("nearby", "hosts-toml", "--region", "beijing", "--gateway", "nowhere")
    assert (done.code, done.out, "use http://HOST:PORT" in done.err) == (2, "", True), done


def failing_at_times(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Lets every second request fail, as while control restarts."""
    asked = count()

    async def ask(*parts: Any, **more: Any) -> Any:
        if next(asked) % 2:
            raise ApiUnreachable("control does not answer")
        return await call(*parts, **more)

    return ask


async def test_sync_wait_survives_a_restart_of_control(
    site: MeshSite, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("cn", "spare"):
        await site.registry(place)
        url = site.registries[place].url
        declared = {"name": place, "account": "game", "region": "beijing", "url": url}
        await site.apply({"instances": [declared]})
    monkeypatch.setattr(ControlClient, "_call", failing_at_times(ControlClient._call))
    done = await terminal("sync", "two", "--wait")
    assert (done.code, "Succeed: 0 tags" in done.err) == (0, True), done


async def test_logs_follow_misses_no_entry(
    site: MeshSite,
    terminal: Terminal,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However few entries are shown at first, and however many are added between two polls."""
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
    client = site.api
    monkeypatch.setattr(client, "_call", failing_at_times(client._call))
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
        cli_logs._follow(client, {"limit": "1"}, 1, Format.TABLE, cli_logs._COLUMNS)
    )

    async def first_is_shown() -> bool:
        nonlocal shown
        shown += capsys.readouterr().out
        return f"spare/game/app:{tags[0]} " in shown

    try:
        await until(first_is_shown)
        for tag in tags[1:]:
            await site.push("cn", tag, image)
        await until(all_ended)
        await until(all_shown)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert [shown.count(f"spare/game/app:{tag} ") for tag in tags] == [1] * len(tags)
    assert shown.count("STATUS") == 1


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["get", "rule", "tow"], "rule/tow is not declared; did you mean 'two'?"),
        (["delete", "instance", "sparse"], "instance/sparse is not declared; did you mean 'spare'?"),
        (
            ["get", "webhook", "ci"],
            "webhook/ci is not declared; `regmesh get webhooks` shows what is declared",
        ),
        (["where", "sparse/app:v1"], "no instance is named 'sparse'; did you mean 'spare'?"),
        (["explain", "sparse/app:v1"], "no instance is named 'sparse'; did you mean 'spare'?"),
        (
            ["wait", "other/app:v1"],
            "no instance is named 'other'; `regmesh get instances` shows what is declared",
        ),
    ],
)
async def test_a_wrong_name_is_reported_with_a_near_match(
    terminal: Terminal, arguments: list[str], what: str
) -> None:
    assert await terminal(*arguments) == (1, "", f"regmesh: {what}\n")


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["sync", "nothing"], 1, "`regmesh get rules` and `regmesh get replicas` show what is"),
        (["stop", "nothing"], 1, "there is no execution nothing; `regmesh get executions` shows them"),
        (["where", "cn/game/app@sha256:" + "ab" * 32], 2, "has a digest: name the image by its tag"),
        (["wait", "cn/game/app:v1@sha256:" + "ab" * 32], 2, "has a digest: name the image by its tag"),
        (["where", "docker://cn/app:v1"], 2, "is not INSTANCE/REPOSITORY[:TAG]"),
        (["where", "127.0.0.1:5000/app:v1"], 2, "is not INSTANCE/REPOSITORY[:TAG]"),
        (["logs", "--repository"], 2, "(see `regmesh logs --help`)"),
        (["delete", "rule"], 2, "a name is missing: `regmesh delete rule NAME`"),
        (["apply", "-f", "one.yaml", "-f", "two.yaml"], 2, "one file at a time"),
    ],
)
async def test_errors_say_what_to_do(terminal: Terminal, arguments: list[str], code: int, what: str) -> None:
    done = await terminal(*arguments)
    assert (done.code, done.out, what in done.err, done.err.count("\n")) == (code, "", True, 1), done


async def test_names_are_accepted_as_other_commands_print_them(site: MeshSite, terminal: Terminal) -> None:
    assert json.loads((await terminal("get", "rule/two", "-o", "json")).out)["name"] == "two"
    assert (await terminal("delete", "rule/two")).out == "rule/two deleted\n"
    assert (await site.get("rules"))["items"] == []


async def test_a_file_is_read_from_standard_input(
    site: MeshSite, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("regions: [{name: oslo, jurisdiction: eu}]"))
    assert (await terminal("apply", "-f", "-")).out == "region/oslo created\n1 changed, 0 unchanged\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("regions: [{name: oslo}]"))
    done = await terminal("apply", "-f", "-")
    assert (done.code, done.err) == (2, "regmesh: -:1: regions[0].jurisdiction: is required\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("# nothing yet\n"))
    assert (await terminal("apply", "-f", "-")) == (
        0,
        "0 changed, 0 unchanged\n",
        "regmesh: - declares nothing\n",
    )


async def test_a_dry_run_says_which_fields_would_change(
    site: MeshSite, terminal: Terminal, tmp_path: Path
) -> None:
    await site.apply({"rules": [{"name": "two", "source": "cn", "destination": "spare"}]})
    file = tmp_path / "mesh.yaml"
    file.write_text("rules:\n  - {name: two, source: cn, destination: spare, override: false, speed: 5000}\n")
    done = await terminal("apply", "-f", str(file), "--dry-run")
    assert done.out == "rule/two changed: override, speed (dry run)\n1 changed, 0 unchanged\n"
    assert (await site.get("rules/two"))["override"] is True


async def test_the_mistakes_of_a_file_are_ordered_by_line(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text("rules:\n  - {name: a, source: x, destination: cn}\n  - b\ninstances:\n  - {name: c}\n")
    problems = (await terminal("apply", "-f", str(file))).err.splitlines()
    lines = [int(line.removeprefix(f"regmesh: {file}:").partition(":")[0]) for line in problems]
    assert lines == sorted(lines)
    assert set(lines) == {2, 3, 5}


async def test_a_list_of_platforms_is_shown_with_bars(site: MeshSite, terminal: Terminal) -> None:
    platform = {"type": "platform", "value": ["linux/amd64", "linux/arm64"]}
    await site.apply(
        {"rules": [{"name": "two", "source": "cn", "destination": "spare", "filters": [platform]}]}
    )
    assert "platform=linux/amd64|linux/arm64" in (await terminal("get", "rules")).out


async def test_a_misspelt_rule_finds_nothing_and_says_so(terminal: Terminal) -> None:
    done = await terminal("logs", "--rule", "tow")
    assert (done.code, done.err) == (0, "regmesh: rule/tow is not declared; did you mean 'two'?\n")
    assert (await terminal("logs", "--rule", "two")).err == ""
    done = await terminal("where", "cn/game/nothing")
    assert (done.code, "no tag of cn/game/nothing is known" in done.err) == (0, True)


async def test_the_log_says_what_was_deleted(site: MeshSite, terminal: Terminal) -> None:
    await _two_registries(site)
    await site.apply({"rules": [{"name": "two", "source": "cn", "destination": "spare", "deletion": True}]})
    await site.start_agent("beijing")
    await site.push("cn", "v1", images.image(layers=[b"one"]))
    await until(lambda: _ended(site, 1))
    async with client(site.registries["cn"]) as registry:
        await registry.delete_manifest(APP, Tag("v1"))
    await until(lambda: _ended(site, 2))
    rows = [line.split() for line in (await terminal("logs")).out.splitlines()]
    assert rows[0][:3] == ["TIME", "STATUS", "OPERATION"]
    assert {row[3] for row in rows[1:]} == {"copy", "delete"}


async def test_an_execution_that_finds_nothing_says_so(site: MeshSite, terminal: Terminal) -> None:
    await _two_registries(site)
    done = await terminal("sync", "two", "--repository", "game/*", "--wait")
    assert (done.code, "nothing matches at the source with --repository game/*" in done.err) == (
        0,
        True,
    ), done


async def test_no_line_of_a_table_ends_with_blanks(site: MeshSite, terminal: Terminal) -> None:
    more = {
        "name": "r",
        "source": "cn",
        "destination": "spare",
        "trigger": {"type": "manual"},
        "enabled": False,
    }
    await site.apply(
        {
            "rules": [
                more | {"name": "a-name-that-is-much-longer", "filters": [{"type": "tag", "value": "v*"}]}
            ]
        }
    )
    lines = (await terminal("get", "rules")).out.splitlines()
    assert len(lines) == 3
    assert [line for line in lines if line != line.rstrip() or not line] == []
    assert len({line.split("  ")[-1].strip() for line in lines}) == 3
    assert [line.index(word) for line, word in zip(lines, ("ENABLED", "no", "yes"), strict=True)] == [
        lines[0].index("ENABLED")
    ] * 3


async def test_an_interrupted_wait_says_that_the_execution_continues(
    site: MeshSite, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_executions, "_until_ended", interrupted)
    done = await terminal("sync", "two", "--wait")
    assert (done.code, done.err) == (
        130,
        f"regmesh: the execution continues; `regmesh stop {done.out.strip()}` stops it\n",
    )


async def test_the_doctor_reports_refused_notifications(
    site: MeshSite, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGMESH_SECRET_IN", "correct-horse")
    guarded = {"name": "cn", "account": "game", "region": "beijing", "url": "http://127.0.0.1:1"}
    await site.apply({"instances": [guarded | {"intake_secret": "IN"}]})
    right = {"Authorization": "Bearer correct-horse"}

    async def findings() -> list[dict[str, str]]:
        done = await terminal("doctor", "-o", "json")
        return [it for it in json.loads(done.out) if "refused" in it["message"]]

    async def both() -> bool:
        return len(await findings()) == 2

    async with ClientSession() as http:
        for to, headers, status in (
            ("cn", {"Authorization": "Bearer battery-staple"}, 401),
            ("spear", right, 404),
        ):
            async with http.post(f"{site.url}/v1/notifications/{to}", data=b"{}", headers=headers) as answer:
                assert answer.status == status
    await until(both)
    wrong, unknown = await findings()
    assert (wrong["severity"], wrong["about"]) == ("problem", "instance/cn")
    assert wrong["message"].startswith("1 notification was refused (401), the last at ")
    assert "send it as `Authorization: Bearer SECRET`" in wrong["advice"]
    assert unknown["about"] == "instance/spear"
    assert unknown["advice"].endswith("declare it, or correct the endpoint's path; did you mean 'spare'?")
    done = await terminal("doctor")
    assert (done.code, "correct-horse" in done.out, "battery" in done.out) == (1, False, False)


async def _two_registries(site: MeshSite) -> None:
    for place in ("cn", "spare"):
        await site.registry(place)
        declared = {"name": place, "account": "game", "region": "beijing", "url": site.registries[place].url}
        await site.apply({"instances": [declared]})


async def _ended(site: MeshSite, many: int) -> bool:
    return len(await site.logs()) >= many
