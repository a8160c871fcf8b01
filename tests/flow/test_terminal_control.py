"""Commands that show what happened, against a control that gets its records from the test."""

import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mesh.clock import SystemClock
from mesh.control.sync_log import log_query
from mesh.log.dead_letters import send_to_dlq
from schemas.completions import Status
from schemas.names import Region
from tests.support.control_site import DIGEST, MESH, NOW, Site, completion, control_site, receiver, until
from tests.support.manual_clock import ManualClock
from tests.support.terminal import Terminal, terminal_at

OTHER = "sha256:" + "cd" * 32
REGIONS = [*MESH["regions"], {"name": "shanghai", "jurisdiction": "cn-mainland"}]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with control_site(tmp_path) as found:
        replicas = [{"instance": "game-cn", "region": "shanghai", "url": "http://127.0.0.1:5003"}]
        await found.control.apply(MESH | {"regions": REGIONS, "replicas": replicas})
        yield found


@pytest.fixture
def terminal(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Terminal]:
    with terminal_at(site.url, capsys, monkeypatch) as made:
        yield made


@pytest.fixture
async def three(site: Site) -> None:
    """Completions that differ in every field that a filter uses."""
    replica = {
        "rule": None, "replica": "game-cn@shanghai", "destination_place": "game-cn@shanghai",
        "destination_region": "shanghai", "execution_id": "execution-2",
    }  # fmt: skip
    await site.report(
        completion(1),
        completion(2, Status.FAILED, repository="team/web", tag="v2", digest=OTHER, attempts=3),
        completion(3, **replica),
    )

    async def all_there() -> bool:
        return len(await site.logs()) == 3

    await until(all_there)


ASKED = {
    "rule": ("release-to-eu", {1, 2}), "replica": ("game-cn@shanghai", {3}), "repository": ("team/*", {2}),
    "tag": ("v2", {2}), "digest": (OTHER, {2}), "status": ("Failed,Stopped", {2}), "region": ("shanghai", {3}),
    "execution": ("execution-2", {3}), "since": (NOW.isoformat().replace("08:00:00", "08:00:02"), {2, 3}),
    "limit": ("1", {3}),
}  # fmt: skip


@pytest.mark.usefixtures("three")
async def test_every_filter_of_the_api_has_an_option_that_does_the_same(
    site: Site, terminal: Terminal
) -> None:
    assert {*ASKED, "cursor"} == set(log_query.PARAMETERS)
    for name, (value, tasks) in ASKED.items():
        done = await terminal("logs", f"--{name}", value, "-o", "json")
        assert {int(it["task_id"][-4:]) for it in json.loads(done.out)} == tasks, (name, done)
        assert {int(it["task_id"][-4:]) for it in await site.logs(**{name: value})} == tasks, name


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--digest", "abcd"], "digest: "),
        (["--region", "Not A Region"], "region: "),
        (["--status", "Fine"], "status: 'Fine' is not one or several"),
        (["--since", "yesterday"], "since: 'yesterday' is neither"),
        (["--tag", "re:("], "tag: "),
        (["-o", "csv"], "'wide'"),
    ],
)
async def test_an_invalid_filter_is_wrong_use(terminal: Terminal, arguments: list[str], what: str) -> None:
    done = await terminal("logs", *arguments)
    assert (done.code, done.out, what in done.err, done.err.count("\n")) == (2, "", True, 1), done


@pytest.mark.parametrize("query", ["Digest=x", "before=1h", "rules=release-to-eu", "limit=1&limit=2"])
async def test_the_api_rejects_unknown_parameters_by_name(site: Site, query: str) -> None:
    status, answer = await site.call("GET", f"/api/v1/logs?{query}")
    assert (status, answer["error"]["message"].partition(":")[0]) == (400, query.partition("=")[0])


async def test_filtering_by_an_unknown_name_prints_a_warning(terminal: Terminal) -> None:
    done = await terminal("logs", "--region", "shanghi")
    assert (done.code, "region/shanghi is not declared; did you mean 'shanghai'?" in done.err) == (0, True)
    done = await terminal("logs", "--execution", "nothing")
    assert (done.code, "there is no execution nothing" in done.err) == (0, True)


@pytest.mark.usefixtures("three")
async def test_a_wide_table_has_the_ids_that_other_commands_take(terminal: Terminal) -> None:
    narrow, wide = [(await terminal("logs", *more)).out.splitlines() for more in ([], ["-o", "wide"])]
    assert [DIGEST in line for line in (narrow[3], wide[3])] == [False, True]
    assert wide[0].split()[:9] == narrow[0].split()[:9]
    (first, failed, replica) = (_cells(wide[0], line) for line in reversed(wide[1:]))
    assert (first["TASK"], first["DIGEST"], first["RULE"], first["SKIPPED"]) == (
        "task-0001", DIGEST, "release-to-eu", "3 B",
    )  # fmt: skip
    assert (failed["DIGEST"], failed["ATTEMPTS"], failed["REASON"]) == (
        OTHER, "3", "unreachable (source): no answer",
    )  # fmt: skip
    values = [replica[name] for name in ("RULE", "EXECUTION", "FROM", "TO", "ORIGIN", "HOPS")]
    assert values == ["game-cn@shanghai", "execution-2", "beijing", "shanghai", "game-cn", "0"]


def _cells(header: str, line: str) -> dict[str, str]:
    names = header.split()
    begins = [header.index(f"{name} ") if name != names[-1] else header.index(name) for name in names]
    return {
        name: line[begin:end].strip()
        for name, begin, end in zip(names, begins, [*begins[1:], None], strict=True)
    }


async def test_webhooks_are_shown_with_their_delivery_status(site: Site, terminal: Terminal) -> None:
    """One accepts after two failures, one accepts nothing, as `doctor` reports, and one has no event yet."""

    async def shown() -> dict[str, Any]:
        return {it["name"]: it for it in json.loads((await terminal("get", "webhooks", "-o", "json")).out)}

    async def both_tried() -> bool:
        found = await shown()
        return found["fine"]["waiting"] == 0 and str(found["deaf"]["state"]).startswith("Failed: ")

    async with receiver(500, 503) as fine, receiver(*[429] * 9999) as deaf:
        urls = {"fine": fine.url, "deaf": deaf.url, "new": fine.url}
        hooks = [
            {"name": name, "url": url, "event_types": ["replication.succeeded"]} for name, url in urls.items()
        ]
        hooks[2]["event_types"] = ["replication.failed"]
        await site.control.apply({"webhooks": hooks})
        await site.report(completion(1), completion(2))
        await until(both_tried)
        found = await shown()
        assert (found["fine"]["state"], found["fine"]["last_failure"]["reason"]) == ("Ready", "answered 503")
        assert found["fine"]["last_delivered"] > found["fine"]["last_failure"]["time"]
        deaf_one = found["deaf"]
        assert (deaf_one["state"], deaf_one["waiting"], deaf_one["last_delivered"]) == (
            "Failed: answered 429",
            2,
            None,
        )
        names = ("state", "waiting", "last_delivered", "last_failure")
        assert [found["new"][name] for name in names] == [None, 0, None, None]
        doctor = json.loads((await terminal("doctor", "-o", "json")).out)
        about = [it for it in doctor if it["about"].startswith("webhook/")]
        assert [it["about"] for it in about] == ["webhook/deaf"]
        assert "answered 429" in about[0]["message"]
        table = (await terminal("get", "webhooks")).out.splitlines()
        assert [line.split()[4:6] for line in table[1:]] == [["Failed", "2"], ["Ready", "0"], ["-", "0"]], (
            table
        )
        assert table[2].endswith("answered 503")
        again = found["fine"] | {"event_types": ["replication.skipped"]}  # as one changes what `get` showed
        assert (await site.call("PUT", "/api/v1/webhooks/fine", again))[0] == 200


async def test_webhooks_are_shown_while_the_database_is_away(site: Site, terminal: Terminal) -> None:
    await site.control.apply({"webhooks": [{"name": "ci", "url": "http://127.0.0.1:9/hook"}]})
    await site.control._database.close()
    (found,) = json.loads((await terminal("get", "webhooks", "-o", "json")).out)
    assert (found["name"], found["state"], found["waiting"]) == ("ci", None, None)


async def sent_to_dlq(
    site: Site, number: int, *, region: str = "beijing", ago: timedelta = timedelta()
) -> None:
    """Sends a dead letter as an intake does for a notification that it cannot read."""
    clock = ManualClock(SystemClock().now() - ago)
    await send_to_dlq(
        site.log, Region(region), raw=b"%d" % number, reason=f"no shape of harbor ({number})",
        position="notifications/game-cn", key="game-cn", clock=clock,
    )  # fmt: skip


async def dead_letters(terminal: Terminal) -> list[tuple[str, str, int]]:
    """Returns id, payload and count, the newest first."""
    done = await terminal("get", "dead-letters", "-o", "json")
    return [(it["id"], it["payload"], it["count"]) for it in json.loads(done.out)]


async def reported_dead_letters(terminal: Terminal) -> list[str]:
    findings = json.loads((await terminal("doctor", "-o", "json")).out)
    return [it["message"].partition(":")[0] for it in findings if "could not be read" in it["message"]]


async def test_dead_letters_are_dismissed_one_by_one(site: Site, terminal: Terminal) -> None:
    for number in (1, 2, 2, 3):
        await sent_to_dlq(site, number)

    async def all_there() -> bool:
        return [count for _, _, count in await dead_letters(terminal)] == [1, 2, 1]

    await until(all_there)
    (third, _, _), (second, _, _), _ = await dead_letters(terminal)
    assert await reported_dead_letters(terminal) == [
        "4 notifications of notifications/game-cn could not be read"
    ]
    assert (await terminal("delete", "dead-letter", second)).out == f"dead-letter/{second} deleted\n"
    assert (await terminal("delete", f"dead-letters/{third}")).code == 0
    assert [payload for _, payload, _ in await dead_letters(terminal)] == ["1"]
    assert await reported_dead_letters(terminal) == [
        "1 notification of notifications/game-cn could not be read"
    ]
    again = await terminal("delete", "dead-letter", second)
    assert again == (
        1,
        "",
        f"regmesh: there is no dead letter {second}; `regmesh get dead-letters` shows them\n",
    )
    await sent_to_dlq(site, 2)  # the same record again is listed again

    async def is_back() -> bool:
        return [payload for _, payload, _ in await dead_letters(terminal)] == ["2", "1"]

    await until(is_back)


async def test_dismissed_dead_letters_stay_dismissed_when_only_the_log_is_left(tmp_path: Path) -> None:
    async def shown(site: Site) -> list[str]:
        return [it["payload"] for it in (await site.call("GET", "/api/v1/dead-letters"))[1]["items"]]

    async with control_site(tmp_path) as site:
        await site.control.apply(MESH)
        for number in (1, 2):
            await sent_to_dlq(site, number)

        async def both() -> bool:
            return len(await shown(site)) == 2

        await until(both)
        (one, _) = (await site.call("GET", "/api/v1/dead-letters"))[1]["items"]
        assert (await site.call("DELETE", f"/api/v1/dead-letters/{one['id']}"))[0] == 204
    async with control_site(tmp_path, database=f"sqlite:///{tmp_path / 'new.db'}") as site:

        async def the_other() -> bool:
            return await shown(site) == ["1"]

        await until(the_other)
        await sent_to_dlq(site, 3)  # comes after everything that existed

        async def comes_alone() -> bool:
            return await shown(site) == ["3", "1"]

        await until(comes_alone)


async def test_dead_letters_are_dismissed_by_age_or_all_at_once(site: Site, terminal: Terminal) -> None:
    for number in range(150):
        await sent_to_dlq(site, number, ago=timedelta(hours=3))
    await sent_to_dlq(site, 150, region="frankfurt", ago=timedelta(hours=2))
    await sent_to_dlq(site, 151)

    async def all_there() -> bool:
        return len(await dead_letters(terminal)) == 101

    await until(all_there)
    assert (await terminal("delete", "dead-letters", "--before", "150m")).out == "150 dead letters deleted\n"
    assert [payload for _, payload, _ in await dead_letters(terminal)] == ["151", "150"]
    assert (await terminal("delete", "dead-letters", "--all")).out == "2 dead letters deleted\n"
    assert await dead_letters(terminal) == []
    assert await reported_dead_letters(terminal) == []
    assert (await terminal("delete", "dead-letters", "--all")) == (0, "0 dead letters deleted\n", "")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (
            ["dead-letters"],
            "a name is missing: `regmesh delete dead-letters NAME`, `--before TIME` or `--all`",
        ),
        (["dead-letters", "x", "--all"], "use --before TIME or --all with dead-letters and without a name"),
        (["dead-letters", "--before", "1h", "--all"], "use --before TIME or --all with dead-letters"),
        (["rules", "--all"], "use --before TIME or --all with dead-letters"),
        (["dead-letters", "--before", "soon"], "before: 'soon' is neither"),
        (["agents", "x"], "'agents' is not a kind: use one of"),
    ],
)
async def test_an_ambiguous_delete_is_wrong_use(terminal: Terminal, arguments: list[str], what: str) -> None:
    done = await terminal("delete", *arguments)
    assert (done.code, done.out, what in done.err, done.err.count("\n")) == (2, "", True, 1), done


@pytest.mark.parametrize("query", ["", "?all=false", "?all=true&before=1h", "?older=1h"])
async def test_the_api_rejects_an_ambiguous_deletion_of_dead_letters(site: Site, query: str) -> None:
    assert (await site.call("DELETE", f"/api/v1/dead-letters{query}"))[0] == 400
