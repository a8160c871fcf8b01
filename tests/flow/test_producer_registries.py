"""Every kind of registry notifies a real intake over HTTP: its events are durable, or kept as dead letters."""

import orjson
import pytest

from producer.normalise import NORMALISE
from schemas import topics
from schemas.events import Action, TagState
from tests.support.intake_site import BEIJING, GAME_CN, GUARDED, SECRET, Site, intake_site
from tests.support.recorded_requests import Request, request, requests

HOSTS = {
    "ecr": "https://123456789012.dkr.ecr.us-west-2.amazonaws.com",
    "google": "https://europe-docker.pkg.dev",
}


@pytest.fixture
async def site(tmp_path):
    async with intake_site(tmp_path) as site:
        yield site


async def declared(site: Site, kind: str) -> None:
    url = HOSTS.get(kind, GAME_CN.url)
    await site.declare(GAME_CN.model_copy(update={"kind": kind, "url": url}))


@pytest.mark.parametrize("kind", sorted(NORMALISE.keys() - {"distribution"}))
async def test_every_request_of_a_kind_is_accepted_and_accounted_for(site: Site, kind: str):
    await declared(site, kind)
    accepted = dead_letters = 0
    for sent in (sent for sent in requests() if sent.kind == kind):
        status, answer, _ = await site.post(sent.body, headers=sent.headers)
        assert status == 202, sent
        accepted += int(str(answer["accepted"]))
        dead_letters += int(str(answer["dead_letters"]))
    assert len(await site.events()) == accepted > 0
    assert len(await site.dead_letters()) == dead_letters == (1 if kind == "acr" else 0)
    assert {event.place for event in await site.events()} == {"game-cn"}
    assert site.count("ignored_events_total", instance="game-cn") > 0


@pytest.mark.parametrize("kind", sorted(NORMALISE))
async def test_what_another_kind_would_send_is_a_dead_letter_and_never_refused(site: Site, kind: str):
    await declared(site, kind)
    body = orjson.dumps({"what": "is this?"})
    status, answer, _ = await site.post(body)
    assert (status, answer) == (202, {"accepted": 0, "dead_letters": 1})
    (dead_letter,) = await site.dead_letters()
    assert (dead_letter.payload_bytes(), dead_letter.position) == (body, "notifications/game-cn")
    assert dead_letter.reason


async def test_zots_headers_reach_its_reader(site: Site):
    await declared(site, "zot")
    sent = request("zot", "image-updated")
    assert (await site.post(sent.body, headers=sent.headers))[1] == {"accepted": 1, "dead_letters": 0}
    assert (await site.post(sent.body))[1] == {"accepted": 0, "dead_letters": 1}
    (tag,) = await site.read(topics.tags(BEIJING), TagState)
    assert tag.key == "game-cn/game/server:1.4.2"


async def test_a_push_without_a_digest_is_an_event_without_a_tag_record(site: Site):
    await declared(site, "quay")
    await site.post(request("quay", "repo-push").body)
    events = await site.events()
    assert [(event.action, event.tag, event.digest) for event in events] == [
        (Action.MANIFEST_PUSH, "1.4.2", None),
        (Action.MANIFEST_PUSH, "latest", None),
    ]
    assert not await site.records(topics.tags(BEIJING))


async def test_a_deleted_artifact_of_harbor_deletes_its_tag(site: Site):
    await declared(site, "harbor")
    for what in ("push", "delete"):
        sent = request("harbor", what)
        await site.post(sent.body, headers=sent.headers)
    (tag,) = await site.records(topics.tags(BEIJING))
    assert (tag.key, tag.value) == ("game-cn/game/server:1.4.2", None)


@pytest.mark.parametrize("sent", [request("quay", "repo-push"), request("google", "insert-tag")], ids=str)
async def test_a_registry_that_sets_no_headers_shows_its_secret_in_the_path(site: Site, sent: Request):
    url = HOSTS.get(sent.kind, GAME_CN.url)
    await site.declare(GUARDED.model_copy(update={"kind": sent.kind, "url": url}))
    assert (await site.post(sent.body, headers=sent.headers))[0] == 401
    assert (await site.post(sent.body, headers=sent.headers, to=f"game-cn?token={SECRET}"))[0] == 202
    assert await site.events()
