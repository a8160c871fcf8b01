"""Rules without `backfill`: what their source forgot to notify comes, and what is older than they are does not."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mesh.errors import LogError
from mesh.log.port import Append
from mesh.registry.builtin.faults import Fail
from producer import reconcile
from schemas import topics
from schemas.names import Digest, Region
from tests.support import images
from tests.support.mesh_site import APP, MeshSite, client, mesh_site, until

BOTH = {"regions": [{"name": name, "jurisdiction": "eu"} for name in ("paris", "frankfurt")]}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two listings of one source, and before one that was refused is tried again."""
    for name in ("_SPACING", "_REFUSED_AGAIN_AFTER"):
        monkeypatch.setattr(f"mesh.control.executions.returns.{name}", timedelta(seconds=0.2))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[MeshSite]:
    async with mesh_site(tmp_path) as found:
        places = {name: (await found.registry(name)).url for name in ("cn", "eu")}
        await found.apply(
            BOTH | {
                "instances": [
                    {"name": "cn", "account": "game", "region": "paris", "url": places["cn"]},
                    {"name": "eu", "account": "game", "region": "frankfurt", "url": places["eu"]},
                ]
            }
        )  # fmt: skip
        for region in ("paris", "frankfurt"):
            await found.start_agent(region)
        yield found


async def declare(site: MeshSite, name: str = "to-eu", **fields: Any) -> None:
    await site.apply({"rules": [{"name": name, "source": "cn", "destination": "eu", **fields}]})


async def until_noted(site: MeshSite, name: str = "to-eu") -> str:
    async def noted() -> Any:
        return (await site.get(f"rules/{name}"))["baseline"]

    found: str = await until(noted)
    return found


async def push_unnotified(site: MeshSite, tag: str, *layers: bytes) -> Digest:
    """As if the registry had ended before its notification was taken."""
    image = images.image(layers=list(layers) or [tag.encode()])
    notifier = site.registries["cn"]._notifier
    notify, notifier._notify = notifier._notify, None
    try:
        async with client(site.registries["cn"]) as registry:
            await images.push(registry, APP, tag, image)  # type: ignore[arg-type]
    finally:
        notifier._notify = notify
    return image.digest


async def restart_source(site: MeshSite) -> None:
    cn = site.registries["cn"]
    port = urlsplit(cn.url).port or 0
    await cn.stop()

    async def is_noticed() -> bool:
        return site.control._schedule.gap_of("cn").is_open

    await until(is_noticed)
    await cn.start(port=port)


async def comparisons(site: MeshSite, rule: str = "to-eu") -> list[tuple[str, str, int]]:
    found = (await site.get("executions", rule=rule))["items"]
    return [(it["operation"], it["status"], it["total"]) for it in found]


async def until_compared(site: MeshSite, rule: str = "to-eu") -> int:
    """Waits for the end of the rule's first comparison, and returns how many tags it found."""

    async def is_over() -> bool:
        return [it[:2] for it in await comparisons(site, rule)] == [("compare", "Succeed")]

    await until(is_over)
    ((_, _, total),) = await comparisons(site, rule)
    return total


async def test_what_the_source_forgot_is_copied_and_what_is_older_than_the_rule_is_not(
    site: MeshSite,
) -> None:
    for tag in ("old", "moves"):
        await site.push("cn", tag, images.image(layers=[b"before", tag.encode()]))
    await declare(site)
    await until_noted(site)
    assert await comparisons(site) == []  # noting what is there is no copy, and not shown as one

    moved = await push_unnotified(site, "moves", b"after")
    new = await push_unnotified(site, "new")
    await restart_source(site)
    assert await until_compared(site) == 2
    assert await site.digest("eu", "moves") == moved
    assert await site.digest("eu", "new") == new
    assert await site.digest("eu", "old") is None
    logs = {(it["tag"], it["status"], it["trigger"]) for it in await site.logs()}
    assert logs == {("moves", "Succeed", "reconcile"), ("new", "Succeed", "reconcile")}


async def test_a_rule_gets_what_is_newer_than_itself_and_not_what_another_rule_missed(site: MeshSite) -> None:
    """The baseline of the second rule sees what the source forgot to notify to the first one."""
    to = {"destination_namespace_replace_count": 0}
    await declare(site)
    await until_noted(site)
    forgotten = await push_unnotified(site, "forgotten")
    await declare(site, "second", destination_namespace="second", **to)
    await until_noted(site, "second")
    newer = await push_unnotified(site, "newer")
    await restart_source(site)
    assert await until_compared(site) == 2
    assert await until_compared(site, "second") == 1
    assert [await site.digest("eu", tag) for tag in ("forgotten", "newer")] == [forgotten, newer]
    second = f"second/{APP}"
    assert await site.digest("eu", "newer", repository=second) == newer  # type: ignore[arg-type]
    assert await site.digest("eu", "forgotten", repository=second) is None  # type: ignore[arg-type]


async def test_a_baseline_that_could_not_be_listed_is_listed_again_and_never_taken_for_one(
    site: MeshSite,
) -> None:
    await site.push("cn", "old", images.image(layers=[b"old"]))
    cn = site.registries["cn"]
    cn.faults.fail = Fail(times=10_000, path="/v2/game/app/tags/list", status=403)
    await declare(site)

    async def was_refused() -> bool:
        return cn.faults.struck["fail"] > 0

    await until(was_refused)
    assert (await site.get("rules/to-eu"))["baseline"] is None
    cn.faults.fail = None
    await until_noted(site)
    new = await push_unnotified(site, "new")
    await restart_source(site)
    assert await until_compared(site) == 1
    assert await site.digest("eu", "new") == new
    assert await site.digest("eu", "old") is None


async def test_a_changed_rule_has_a_new_baseline(site: MeshSite) -> None:
    await declare(site, filters=[{"type": "tag", "value": "v*"}])
    first = await until_noted(site)
    await site.push("cn", "old", images.image(layers=[b"old"]))
    await declare(site)

    async def is_noted_again() -> bool:
        return (await site.get("rules/to-eu"))["baseline"] not in (None, first)

    await until(is_noted_again)
    new = await push_unnotified(site, "v1")
    await restart_source(site)
    assert await until_compared(site) == 1
    assert (await site.digest("eu", "v1"), await site.digest("eu", "old")) == (new, None)


async def test_a_record_that_cannot_be_read_ends_no_producer(site: MeshSite) -> None:
    key = f"cn/{APP}:unreadable"
    await site.node.log.append([Append(topics.tags(Region("paris")), key, b"{")])
    await site.push("cn", "old", images.image(layers=[b"old"]))
    await declare(site)
    await until_noted(site)
    new = await push_unnotified(site, "new")
    await restart_source(site)
    assert await until_compared(site) == 1
    assert (await site.digest("eu", "new"), await site.digest("eu", "old")) == (new, None)


async def test_a_log_that_refuses_the_tags_is_said_and_stops_no_other_execution(
    site: MeshSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object) -> None:
        raise LogError("read mesh.paris.tags: Kafka refused")

    monkeypatch.setattr(reconcile, "read_known_tags", refused)
    digest = await site.push("cn", "old", images.image(layers=[b"old"]))
    await declare(site)

    async def has_failed() -> bool:
        (attempt, *_) = await site.control._executions.baselines("to-eu", 0, 1) or [None]
        return attempt is not None and attempt.error_code == LogError.code

    await until(has_failed)
    assert (await site.get("rules/to-eu"))["baseline"] is None
    await site.api.request("POST", "/api/v1/executions", body={"rule": "to-eu"})
    await until(lambda: site.digest("eu", "old"))
    assert await site.digest("eu", "old") == digest
