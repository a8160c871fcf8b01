"""Every kind of registry speaks to a real intake over HTTP: what it says is durable, or kept as a dead letter."""

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
async def test_every_request_of_a_kind_is_taken_and_accounted_for(site: Site, kind: str):
    await declared(site, kind)
    accepted = dead_letters = 0
    for said in (said for said in requests() if said.kind == kind):
        status, answer, _ = await site.post(said.body, headers=said.headers)
        assert status == 202, said
        accepted += int(str(answer["accepted"]))
        dead_letters += int(str(answer["dead_letters"]))
    assert len(await site.events()) == accepted > 0
    assert len(await site.dead_letters()) == dead_letters == (1 if kind == "acr" else 0)
    assert {event.place for event in await site.events()} == {"game-cn"}
    assert site.count("ignored_events_total", instance="game-cn") > 0


@pytest.mark.parametrize("kind", sorted(NORMALISE))
async def test_what_another_kind_would_send_is_put_away_and_never_refused(site: Site, kind: str):
    await declared(site, kind)
    body = orjson.dumps({"what": "is this?"})
    status, answer, _ = await site.post(body)
    assert (status, answer) == (202, {"accepted": 0, "dead_letters": 1})
    (dead_letter,) = await site.dead_letters()
    assert (dead_letter.payload_bytes(), dead_letter.position) == (body, "notifications/game-cn")
    assert dead_letter.reason


async def test_zots_headers_reach_its_reader(site: Site):
    await declared(site, "zot")
    said = request("zot", "image-updated")
    assert (await site.post(said.body, headers=said.headers))[1] == {"accepted": 1, "dead_letters": 0}
    assert (await site.post(said.body))[1] == {"accepted": 0, "dead_letters": 1}
    (tag,) = await site.read(topics.tags(BEIJING), TagState)
    assert tag.key == "game-cn/game/server:1.4.2"


async def test_a_push_without_a_digest_is_an_event_and_says_nothing_of_what_the_tag_names(site: Site):
    await declared(site, "quay")
    await site.post(request("quay", "repo-push").body)
    events = await site.events()
    assert [(event.action, event.tag, event.digest) for event in events] == [
        (Action.MANIFEST_PUSH, "1.4.2", None),
        (Action.MANIFEST_PUSH, "latest", None),
    ]
    assert not await site.records(topics.tags(BEIJING))


async def test_a_deleted_artifact_of_harbor_takes_its_tag_along(site: Site):
    await declared(site, "harbor")
    for what in ("push", "delete"):
        said = request("harbor", what)
        await site.post(said.body, headers=said.headers)
    (tag,) = await site.records(topics.tags(BEIJING))
    assert (tag.key, tag.value) == ("game-cn/game/server:1.4.2", None)


@pytest.mark.parametrize("said", [request("quay", "repo-push"), request("google", "insert-tag")], ids=str)
async def test_a_registry_that_sets_no_headers_shows_its_secret_in_the_path(site: Site, said: Request):
    url = HOSTS.get(said.kind, GAME_CN.url)
    await site.declare(GUARDED.model_copy(update={"kind": said.kind, "url": url}))
    assert (await site.post(said.body, headers=said.headers))[0] == 401
    assert (await site.post(said.body, headers=said.headers, to=f"game-cn?token={SECRET}"))[0] == 202
    assert await site.events()
