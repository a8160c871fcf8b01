"""Webhooks from a completion on the log to a real receiver."""

import asyncio
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from mesh.control.settings import ControlSettings
from mesh.control.storage.database import Database
from mesh.control.sync_log.store import SyncLog
from mesh.control.webhooks.deliver import Deliver
from mesh.control.webhooks.outbox import Outbox
from mesh.credentials.secrets import Secrets
from mesh.errors import LogUnavailable
from mesh.rules.state import MeshState
from schemas.completions import Status
from tests.support.control_site import KEY, MESH, NOW, QUICK, Site, completion, control_site, receiver, until

SECRET = {"REGMESH_SECRET_CI_KEY": KEY}


def hooks(**urls: str) -> dict[str, Any]:
    return MESH | {
        "webhooks": [{"name": name, "url": f"{url}/hook", "secret": "ci-key"} for name, url in urls.items()]
    }


def delivered(site: Site, hook: str = "ci", outcome: str = "delivered") -> float:
    labels = {"webhook": hook, "outcome": outcome}
    return site.metrics.registry.get_sample_value("regmesh_webhook_deliveries_total", labels) or 0.0


def kept(folder: Path) -> list[tuple[str, str, int]]:
    engine = create_engine(f"sqlite:///{folder / 'control.db'}")
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT webhook, state, tries FROM webhook_deliveries ORDER BY webhook")
        )
        found = [tuple(row) for row in rows]
    engine.dispose()
    return found


async def test_a_receiver_is_reported_signed_as_a_cloud_event(tmp_path: Path):
    async with receiver() as ci, control_site(tmp_path, environment=SECRET) as site:
        await site.control.apply(hooks(ci=ci.url))
        await site.report(completion(1), completion(2, Status.SKIPPED), completion(3, Status.FAILED))
        await until(lambda: delivered(site) == 2)
        bodies = ci.verified()
        assert sorted(body["type"] for body in bodies) == ["replication.failed", "replication.succeeded"]
        entries = {entry["task_id"]: entry for entry in await site.logs()}
        assert [entries[body["data"]["task_id"]] for body in bodies] == [body["data"] for body in bodies]
        assert {headers["Content-Type"] for headers, _ in ci.requests} == {"application/cloudevents+json"}
        assert {headers["webhook-id"] for headers, _ in ci.requests} == {body["id"] for body in bodies}


async def test_three_failures_then_taken(tmp_path: Path):
    async with receiver(500, 429, 302) as ci, control_site(tmp_path, environment=SECRET) as site:
        await site.control.apply(hooks(ci=ci.url))
        await site.report(completion())
        await until(lambda: delivered(site) == 1)
        assert len(ci.verified()) == 4  # and the redirect was not followed
        assert len({headers["webhook-id"] for headers, _ in ci.requests}) == 1
        assert len({body for _, body in ci.requests}) == 1
        assert delivered(site, outcome="retried") == 3
    assert kept(tmp_path) == [("ci", "delivered", 4)]


async def test_a_receiver_that_takes_nothing_is_reported_by_the_doctor(tmp_path: Path):
    async def about_ci(site: Site) -> list[str]:
        findings = (await site.call("GET", "/api/v1/doctor"))[1]["items"]
        return [it["message"] for it in findings if it["about"] == "webhook/ci"]

    async with control_site(tmp_path, environment={}) as site:
        await site.control.apply(hooks(ci="http://127.0.0.1:9"))
        await site.report(completion())
        await until(lambda: delivered(site, outcome="retried") >= 3)
        (reported,) = await about_ci(site)
        assert reported.startswith("1 delivery fails repeatedly: secret 'ci-key' has no value: set ")
    async with receiver() as ci, control_site(tmp_path, environment=SECRET) as site:
        await site.control.apply(hooks(ci=ci.url))
        await until(lambda: delivered(site) == 1)
        assert await about_ci(site) == []


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "0.0.0.0", "metadata.test"])
async def test_nothing_is_sent_to_link_local_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """Also not by a name that resolves to one; the reason shows without the URL, whose path may be a secret."""
    found = socket.getaddrinfo

    def resolved(name: str, *more: Any, **options: Any) -> Any:
        return found("169.254.169.254" if name == "metadata.test" else name, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    async with control_site(tmp_path, environment=SECRET) as site:
        await site.control.apply(hooks(ci=f"http://{host}/latest/meta-data"))
        await site.report(completion())
        await until(lambda: delivered(site, outcome="retried") >= 1)
        (hook,) = (await site.call("GET", "/api/v1/webhooks"))[1]["items"]
        assert "not on a public or private network" in hook["last_failure"]["reason"]
        assert "meta-data" not in hook["last_failure"]["reason"]


async def test_a_restart_in_between_loses_none(tmp_path: Path):
    async with receiver(*[503] * 3) as ci:
        async with control_site(
            tmp_path, environment=SECRET, settings=ControlSettings(webhook_first_wait=0.3)
        ) as site:
            await site.control.apply(hooks(ci=ci.url))
            await site.report(completion())
            await until(lambda: delivered(site, outcome="retried") == 1)
        assert kept(tmp_path) == [("ci", "pending", 1)]
        async with control_site(tmp_path, environment=SECRET) as site:
            await until(lambda: delivered(site) == 1)
        assert len({body["id"] for body in ci.verified()}) == 1
        assert len(ci.requests) == 4


async def test_a_stop_while_a_try_runs_gives_it_back_at_once(tmp_path: Path):
    async with receiver(0) as ci:
        async with control_site(
            tmp_path, environment=SECRET, settings=ControlSettings(webhook_timeout=60)
        ) as site:
            await site.control.apply(hooks(ci=ci.url))
            await site.report(completion())
            await until(lambda: len(ci.requests) == 1)
        assert kept(tmp_path) == [("ci", "pending", 0)]
        async with control_site(tmp_path, environment=SECRET) as site:
            await until(lambda: delivered(site) == 1)
        assert len({body["id"] for body in ci.verified()}) == 1


async def test_a_slow_receiver_delays_no_other(tmp_path: Path):
    settings = ControlSettings(webhook_timeout=60, webhook_concurrency=2)
    async with (
        receiver(*[0] * 50) as slow,
        receiver() as ci,
        control_site(tmp_path, environment=SECRET, settings=settings) as site,
    ):
        await site.control.apply(hooks(ci=ci.url, slow=slow.url))
        await site.report(*(completion(number) for number in range(20)))
        await until(lambda: delivered(site) == 20)
        assert len(slow.requests) == 2


async def test_a_receiver_that_is_not_there_and_comes(tmp_path: Path):
    async with receiver() as deleted:
        url = deleted.url
    async with control_site(tmp_path, environment=SECRET) as site:
        await site.control.apply(hooks(ci=url))
        await site.report(completion())
        await until(lambda: delivered(site, outcome="retried") >= 2)
        async with receiver() as ci:
            await site.control.apply(hooks(ci=ci.url))
            await until(lambda: delivered(site) == 1)
            assert len(ci.verified()) == 1


async def test_a_hung_receiver_is_timed_out(tmp_path: Path):
    async with receiver(0) as ci, control_site(
        tmp_path, environment=SECRET, settings=ControlSettings(webhook_timeout=0.2, webhook_first_wait=0.02)
    ) as site:  # fmt: skip
        await site.control.apply(hooks(ci=ci.url))
        await site.report(completion())
        await until(lambda: delivered(site) == 1)
        assert len(ci.requests) == 2


async def test_without_its_secret_nothing_is_sent_until_it_is_there(tmp_path: Path, capsys: Any):
    environment: dict[str, str] = {}
    async with receiver() as ci, control_site(tmp_path, environment=environment) as site:
        await site.control.apply(hooks(ci=ci.url))
        await site.report(completion())
        await until(lambda: delivered(site, outcome="retried") >= 2)
        assert ci.requests == []
        environment |= SECRET
        await until(lambda: delivered(site) == 1)
        assert len(ci.verified()) == 1
    reported = capsys.readouterr().out
    assert "set REGMESH_SECRET_CI_KEY" in reported
    assert KEY not in reported


async def test_a_secret_that_cannot_be_read_stops_nothing_but_its_webhook(tmp_path: Path):
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "ci-key").write_bytes(b"\xff\xfe")  # a file of another encoding
    environment = {"REGMESH_SECRETS_DIR": str(folder)}
    async with receiver() as ci, control_site(tmp_path, environment=environment) as site:
        await site.control.apply(hooks(ci=ci.url))
        await site.report(completion(1))
        await until(lambda: delivered(site, outcome="retried") >= 1)
        await site.report(completion(2))

        async def both_are_in_the_log() -> bool:
            return len(await site.logs()) == 2

        await until(both_are_in_the_log)
        assert ci.requests == []
        (folder / "ci-key").write_text(KEY)
        await until(lambda: delivered(site) == 2)
        assert len(ci.verified()) == 2


async def test_given_up_after_days_and_kept_for_people(tmp_path: Path):
    settings = ControlSettings(webhook_first_wait=0.02, webhook_longest_wait=0.02, webhook_give_up_after=0.1)
    async with (
        receiver(*[500] * 99) as ci,
        control_site(tmp_path, environment=SECRET, settings=settings) as site,
    ):
        await site.control.apply(hooks(ci=ci.url))
        await site.report(completion())
        await until(lambda: delivered(site, outcome="given_up") == 1)
        reported = len(ci.requests)
        await asyncio.sleep(0.1)
        assert len(ci.requests) == reported
    ((_, state, counted),) = kept(tmp_path)
    assert (state, counted) == ("given_up", reported)


async def test_deliveries_to_a_deleted_webhook_are_closed(tmp_path: Path):
    async with receiver(*[500] * 99) as ci, control_site(tmp_path, environment=SECRET) as site:
        await site.control.apply(hooks(ci=ci.url))
        await site.report(completion(1), completion(2))
        await until(lambda: delivered(site, outcome="retried") >= 2)
        assert (await site.call("DELETE", "/api/v1/webhooks/ci"))[0] == 204
        await until(lambda: {state for _, state, _ in kept(tmp_path)} == {"closed"})


async def test_a_control_that_does_not_reach_the_log_closes_nothing_of_one_that_does(tmp_path: Path):
    """Both share the database: the webhook was declared when the log did not answer the other one any more."""
    asked = 0

    async def away() -> None:
        nonlocal asked
        asked += 1
        raise LogUnavailable("no answer")

    async with receiver() as ci, control_site(tmp_path, running=False) as site:
        await site.control.apply(hooks(ci=ci.url))
        database = Database(f"sqlite:///{tmp_path / 'control.db'}")
        await SyncLog(database).write([completion()], site.state.webhooks(), NOW)
        other = Deliver(
            Outbox(database), ports=replace(site.ports, state=MeshState()), secrets=Secrets(SECRET), settings=QUICK,
            caught_up=away,
        )  # fmt: skip
        running = asyncio.create_task(other.run())
        await until(lambda: asked > 0 or kept(tmp_path)[0][1] != "pending")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert kept(tmp_path) == [("ci", "pending", 0)]
        await database.close()


async def test_only_the_account_whose_instances_are_touched(tmp_path: Path):
    async with receiver() as mine, receiver() as other, control_site(tmp_path) as site:
        reported = [
            {"name": "mine", "url": mine.url, "account": "game"},
            {"name": "other", "url": other.url, "account": "other"},
        ]
        await site.control.apply(MESH | {"webhooks": reported})
        await site.report(completion(1), completion(2))
        await until(lambda: delivered(site, "mine") == 2)
        assert other.requests == []
        assert all("webhook-signature" not in headers for headers, _ in mine.requests)
    assert {name for name, _, _ in kept(tmp_path)} == {"mine"}
