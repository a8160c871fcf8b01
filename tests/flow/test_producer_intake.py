"""Notifications over HTTP, on a real log: the answer, what is durable by then, and authentication."""

import asyncio
import logging
from pathlib import Path

import orjson
import pytest
from aiohttp import ClientSession, UnixConnector, web
from structlog.testing import capture_logs

from producer.settings import ProducerSettings
from schemas import topics
from schemas.dead_letters import MAX_BYTES
from schemas.events import Action, Event, TagState
from schemas.rules import Rule
from tests.support.intake_site import BEIJING, GAME_CN, GUARDED, SECRET, Site, intake_site

DIGEST = "sha256:" + "ab" * 32
RECORDED = Path(__file__).parent.parent / "recorded" / "distribution"


@pytest.fixture
async def site(tmp_path):
    async with intake_site(tmp_path) as site:
        yield site


def push(number: int = 0, *, repository: str = "game/server", tag: str = "1.0") -> dict[str, object]:
    return {
        "id": f"id-{number}",
        "timestamp": "2026-03-01T08:00:00Z",
        "action": "push",
        "target": {"repository": repository, "tag": tag, "digest": DIGEST, "size": 708},
    }


def envelope(*events: object) -> bytes:
    return orjson.dumps({"events": list(events)})


async def test_accepted_means_durable(site: Site):
    rev = await site.declare(GAME_CN)
    status, answer, _ = await site.post(envelope(push()))
    assert (status, answer["accepted"]) == (202, 1)
    (event,) = await site.events()
    assert (event.action, event.repository, event.tag) == (Action.MANIFEST_PUSH, "game/server", "1.0")
    assert event.rules_rev >= rev
    (record,) = await site.records(topics.events(BEIJING))
    assert record.key == "game-cn/game/server"
    (tag,) = await site.read(topics.tags(BEIJING), TagState)
    assert (tag.key, tag.digest) == ("game-cn/game/server:1.0", DIGEST)
    assert site.count("notifications_total", instance="game-cn", answer="accepted") == 1
    assert site.count("events_total", instance="game-cn", action="manifest_push") == 1
    assert site.count("intake_seconds_count") == 1


async def test_a_deleted_tag_is_forgotten(site: Site):
    await site.declare(GAME_CN)
    await site.post(envelope(push()))
    deleted = {**push(1), "action": "delete", "target": {"repository": "game/server", "tag": "1.0"}}
    assert (await site.post(envelope(deleted)))[0] == 202
    assert [event.action for event in await site.events()] == [Action.MANIFEST_PUSH, Action.TAG_DELETE]
    assert [(record.key, record.value) for record in await site.records(topics.tags(BEIJING))] == [
        ("game-cn/game/server:1.0", None)
    ]


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.json")), ids=lambda path: path.stem)
async def test_recorded_notifications_are_read_whole(site: Site, path: Path):
    """Under either content type, and any other: the path names the registry, not the header."""
    await site.declare(GAME_CN)
    sent = orjson.loads(path.read_bytes())["events"]
    for version in (
        "vnd.docker.distribution.events.v1+json",
        "vnd.docker.distribution.events.v2+json",
        "json",
    ):
        status, answer, _ = await site.post(
            path.read_bytes(), headers={"Content-Type": f"application/{version}"}
        )
        pulls = sum(event["action"] == "pull" for event in sent)
        assert (status, answer) == (202, {"accepted": len(sent) - pulls, "dead_letters": 0})
    assert len({event.id for event in await site.events()}) == len(sent) - pulls  # the same each time


async def test_one_bad_event_becomes_a_dead_letter_and_the_others_are_accepted(site: Site):
    await site.declare(GAME_CN)
    bad = push(1, repository="Not/Allowed")
    status, answer, _ = await site.post(envelope(push(0), bad, push(2), {**push(3), "action": "pull"}))
    assert (status, answer) == (202, {"accepted": 2, "dead_letters": 1})
    assert len(await site.events()) == 2
    (dead_letter,) = await site.dead_letters()
    assert orjson.loads(dead_letter.payload_bytes()) == bad
    assert "not a repository name" in dead_letter.reason
    assert dead_letter.position == "notifications/game-cn"
    assert site.count("ignored_events_total", instance="game-cn") == 1
    assert site.count("notifications_total", instance="game-cn", answer="bad") == 1
    assert site.count("dead_letters_total", topic="mesh.beijing.dead-letters") == 1


async def test_many_bad_events_are_one_bad_envelope(site: Site):
    await site.declare(GAME_CN)
    body = envelope(push(), *range(500))
    assert (await site.post(body))[1] == {"accepted": 1, "dead_letters": 1}
    (dead_letter,) = await site.dead_letters()
    assert dead_letter.payload_bytes() == body
    assert dead_letter.reason.startswith("500 events")


@pytest.mark.parametrize("body", [b"", b"{", b"\x00\xff", b'{"events": 5}', b"[" * 5000])
async def test_what_is_no_notification_is_accepted_as_a_dead_letter(site: Site, body: bytes):
    await site.declare(GAME_CN)
    status, answer, _ = await site.post(body)
    assert (status, answer) == (202, {"accepted": 0, "dead_letters": 1})
    (dead_letter,) = await site.dead_letters()
    assert dead_letter.payload_bytes() == body


async def test_an_oversized_body_is_accepted_as_a_dead_letter_of_its_beginning(site: Site):
    await site.declare(GAME_CN)
    body = b'{"events": [' + b" " * (9 * 1024 * 1024) + b"]}"
    status, answer, _ = await site.post(body)
    assert (status, answer) == (202, {"accepted": 0, "dead_letters": 1})
    (dead_letter,) = await site.dead_letters()
    assert dead_letter.payload_bytes() == body[:MAX_BYTES]
    assert str(len(body)) in dead_letter.reason


async def test_the_largest_body_is_a_setting(tmp_path):
    async with intake_site(tmp_path, settings=ProducerSettings(max_body_bytes=1000)) as site:
        await site.declare(GAME_CN)
        assert (await site.post(envelope(push())))[1] == {"accepted": 1, "dead_letters": 0}
        assert (await site.post(envelope(*(push(n) for n in range(9)))))[1] == {
            "accepted": 0,
            "dead_letters": 1,
        }
        (dead_letter,) = await site.dead_letters()
        assert "exceeds the limit of 1000" in dead_letter.reason


async def test_the_time_for_a_body_is_a_setting(tmp_path):
    async with intake_site(tmp_path, settings=ProducerSettings(body_timeout=0.1)) as site:
        await site.declare(GAME_CN)
        reader, writer = await raw_request(site, envelope(push()))
        assert b" 408 " in await reader.readline()
        writer.close()


async def test_a_large_envelope_is_accepted_whole(site: Site):
    await site.declare(GAME_CN)
    assert (await site.post(envelope(*(push(n) for n in range(3000)))))[1]["accepted"] == 3000
    assert len({event.id for event in await site.events()}) == 3000


async def test_nothing_is_acknowledged_while_the_log_is_unavailable(site: Site):
    await site.declare(GAME_CN)
    await site.post(envelope(push()))
    await site.log.close()
    status, answer, headers = await site.post(envelope(push(1)))
    assert (status, headers["Retry-After"]) == (503, "5")
    assert "send it again" in answer["error"]
    assert (await site.post(b"no JSON"))[0] == 503  # nor is a dead letter that cannot be written
    assert site.count("notifications_total", instance="game-cn", answer="unavailable") == 2
    assert (await site.post(envelope(push()), to="perhaps-declared"))[0] == 503
    assert site.count("notifications_total", instance="unknown", answer="unavailable") == 1


async def test_an_unknown_instance_is_not_found_until_it_is_declared(site: Site):
    status, answer, _ = await site.post(envelope(push()))
    assert status == 404
    assert "'game-cn'" in answer["error"]
    await site.declare(GAME_CN)
    assert (await site.post(envelope(push())))[0] == 202
    assert (await site.post(b"", to="a%0Ab"))[0] == 404
    assert site.count("notifications_total", instance="unknown", answer="refused") == 2


async def test_a_rule_applied_before_a_push_is_in_its_revision(site: Site):
    await site.declare(GAME_CN)
    for number in range(30):
        rev = await site.declare(Rule(name=f"rule-{number}", source="game-cn", destination="game-eu"))
        answers = await asyncio.gather(*(site.post(envelope(push(number * 3 + n))) for n in range(3)))
        assert {status for status, _, _ in answers} == {202}
        events: list[Event] = (await site.events())[-3:]
        assert all(event.rules_rev >= rev for event in events)
    assert site.count("stale_stamps_total") == 0


# Authentication


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {SECRET}"},
        {"Authorization": f"bearer  {SECRET}"},
        {"Authorization": SECRET},
        {"Authorization": f"Bearer {SECRET}", "X-Forwarded-For": "203.0.113.9"},
    ],
)
async def test_the_secret_authenticates(site: Site, headers):
    await site.declare(GUARDED)
    assert (await site.post(envelope(push()), headers))[0] == 202


async def test_the_secret_may_come_as_a_parameter(site: Site):
    await site.declare(GUARDED)
    assert (await site.post(envelope(push()), to=f"game-cn?token={SECRET}"))[0] == 202
    assert (await site.post(envelope(push()), to="game-cn?token=wrong"))[0] == 401


@pytest.mark.parametrize(
    "presented", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic Og==", f"{SECRET}x", "é\u20ac"]
)
async def test_anything_else_is_refused_and_counted(site: Site, presented):
    await site.declare(GUARDED)
    status, answer, headers = await site.post(
        envelope(push()), {"Authorization": presented} if presented is not None else {}
    )
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "Authorization: Bearer" in answer["error"]
    assert not await site.records(topics.events(BEIJING))
    assert site.count("notifications_total", instance="game-cn", answer="refused") == 1


@pytest.mark.parametrize("environment", [{}, {"REGMESH_SECRET_GAME_CN_INTAKE": ""}])
async def test_a_secret_without_a_value_authenticates_nobody(tmp_path, environment):
    async with intake_site(tmp_path, environment) as site:
        await site.declare(GUARDED)
        for presented in ("", "Bearer ", "Bearer x"):
            status, answer, _ = await site.post(envelope(push()), {"Authorization": presented})
            assert status == 403
            assert "has no value on this node" in answer["error"]


async def test_a_rotated_secret_file_is_read_again(tmp_path):
    file = tmp_path / "game-cn-intake"
    async with intake_site(tmp_path, {"REGMESH_SECRETS_DIR": str(tmp_path)}) as site:
        await site.declare(GUARDED)
        for value in ("first", "second"):
            file.write_text(value + "\n")
            assert (await site.post(envelope(push()), {"Authorization": f"Bearer {value}"}))[0] == 202
        assert (await site.post(envelope(push()), {"Authorization": "Bearer first"}))[0] == 401
        file.write_bytes(b"\xff\xfe")
        assert (await site.post(envelope(push()), {"Authorization": "Bearer second"}))[0] == 403


async def test_no_secret_is_ever_logged_or_answered(site: Site, caplog):
    caplog.set_level(logging.DEBUG)
    await site.declare(GUARDED)
    with capture_logs() as logs:
        answers = [
            await site.post(body, headers, to)
            for body in (envelope(push()), b"bad")
            for headers, to in [
                ({"Authorization": f"Bearer {SECRET}"}, "game-cn"),
                ({}, f"game-cn?token={SECRET}"),
                ({"Authorization": "Bearer almost-right"}, "game-cn?token=nearly-right"),
                ({"Authorization": "Bearer almost-right"}, "elsewhere?token=nearly-right"),
            ]
        ]
    seen = (
        repr(logs) + repr(answers) + "".join(line for line in caplog.text.splitlines() if "aiohttp" in line)
    )
    assert {entry["action"] for entry in logs} == {"notification_refused", "notification_unreadable"}
    for secret in (SECRET, "almost-right", "nearly-right"):
        assert secret not in seen


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "Origin"])
async def test_without_a_secret_only_a_direct_local_peer_is_accepted(site: Site, header):
    await site.declare(GAME_CN)
    assert (await site.post(envelope(push())))[0] == 202
    status, answer, _ = await site.post(envelope(push()), {header: "127.0.0.1"})
    assert status == 403
    assert "declare an intake_secret" in answer["error"]


async def test_a_peer_without_an_address_is_not_local(site: Site, tmp_path):
    await site.declare(GAME_CN)
    path = str(tmp_path / "intake.sock")
    await web.UnixSite(site.runner, path).start()
    async with (
        ClientSession(connector=UnixConnector(path)) as http,
        http.post("http://intake/v1/notifications/game-cn", data=envelope(push())) as answer,
    ):
        assert answer.status == 403


# How a connection ends


async def raw_request(site: Site, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Sends the head and half the body; the caller may send the rest."""
    host, port = site.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/notifications/game-cn HTTP/1.1\r\nHost: intake\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body[: len(body) // 2])
    await writer.drain()
    return reader, writer


async def test_a_table_that_is_too_slow_delays_no_event(site: Site):
    rev = await site.declare(GAME_CN)
    await site.post(envelope(push()))
    site.following.cancel()
    await site.declare(Rule(name="unseen", source="game-cn", destination="game-eu"))
    assert (await site.post(envelope(push(1), push(2))))[0] == 202
    assert [event.rules_rev for event in await site.events()] == [rev] * 3
    assert site.count("stale_stamps_total") == 2


async def test_a_stop_lets_a_request_in_progress_finish(site: Site):
    await site.declare(GAME_CN)
    await site.post(envelope(push()))
    site.following.cancel()  # so that the next one waits half a second for its revision
    posting = asyncio.create_task(site.post(envelope(push(1))))
    await asyncio.sleep(0.1)
    assert not posting.done()
    await site.runner.cleanup()
    assert (await posting)[0] == 202
    assert len(await site.events()) == 2


async def test_a_client_that_disconnects_half_way_leaves_nothing(site: Site):
    await site.declare(GAME_CN)
    _, writer = await raw_request(site, envelope(push()))
    writer.close()
    await writer.wait_closed()
    assert (await site.post(envelope(push(1))))[0] == 202
    assert [event.tag for event in await site.events()] == ["1.0"]


async def test_a_body_that_is_not_encoded_as_it_says_is_refused(site: Site):
    await site.declare(GAME_CN)
    status, _, _ = await site.post(b"no gzip at all", {"Content-Encoding": "gzip"})
    assert status in (400, 408)
