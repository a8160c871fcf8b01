"""Filters on what an image is: labels, platforms, and what is copied of an index."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from schemas.completions import Completion, Status
from schemas.names import Digest, Repository, Tag
from tests.flow.test_agent import APP, Site, client, open_site
from tests.support import images, platforms

AMD, ARM, WINDOWS = "linux/amd64", "linux/arm64/v8", "windows/amd64"
EACH = {name: platforms.image(name) for name in (AMD, ARM, WINDOWS)}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path) as found:
        yield found


@pytest.fixture
async def lenient(tmp_path: Path) -> AsyncIterator[Site]:
    """Its destination takes an index without all its images."""
    async with open_site(tmp_path, sparse_indexes=True) as found:
        yield found


async def rule(site: Site, *filters: dict[str, Any], **fields: Any) -> None:
    await site.declare("rule", "release", source="cn", destination="eu", filters=list(filters), **fields)


def platform(value: Any, mode: str = "full") -> dict[str, Any]:
    return {"type": "platform", "value": value, "mode": mode}


def why(end: Completion) -> tuple[str, str | None]:
    return end.status, end.error.code if end.error else None


async def there(site: Site, digest: Digest) -> bool:
    async with client(site.destination) as destination:
        return await destination.resolve(APP, digest) is not None


async def body(site: Site, reference: Tag | Digest) -> bytes:
    async with client(site.destination) as destination:
        return (await destination.read_manifest(APP, reference)).body


async def test_only_versions_in_the_range_are_copied(site: Site) -> None:
    await rule(
        site,
        {"type": "semver", "value": "^1.2"},
        {"type": "name", "value": "**/old", "decoration": "excludes"},
    )
    built = images.image(layers=[b"x"])
    for tag in ("latest", "1.1.9", "v2.0.0", "1.3.0-rc.1", "1.2"):
        await site.push(tag, built)
    await site.push("1.4.0", built, repository=Repository("game/old"))
    await site.push("v1.4.2", built)
    (end,) = await site.ends(1)
    assert (end.tag, why(end)) == ("v1.4.2", ("Succeed", None))


async def test_labels_are_those_of_the_config_and_the_annotations(site: Site) -> None:
    await rule(site, {"type": "label", "value": "team=core-*"})
    await site.push("config", platforms.image(AMD, labels={"team": "core-net"}))
    await site.push("annotation", platforms.image(AMD, annotations={"team": "core-db"}))
    await site.push("other", platforms.image(AMD, labels={"team": "web"}))
    await site.push("none", platforms.image(AMD))
    await site.push(
        "index", platforms.index({AMD: platforms.image(AMD, labels={"team": "core-x"}), ARM: EACH[ARM]})
    )
    ends = {end.tag: end for end in await site.ends(5)}
    assert {tag for tag, end in ends.items() if end.status is Status.SUCCEED} == {
        "config",
        "annotation",
        "index",
    }
    assert why(ends[Tag("other")]) == ("Skipped", "filtered")
    assert ends[Tag("none")].error is not None
    assert "filters[0] (label team=core-*)" in ends[Tag("none")].error.message


async def test_a_label_that_is_excluded(site: Site) -> None:
    await rule(site, {"type": "label", "value": "internal", "decoration": "excludes"})
    await site.push("yes", platforms.image(AMD, labels={"team": "web"}))
    await site.push("no", platforms.image(AMD, labels={"internal": ""}))
    ends = {end.tag: why(end) for end in await site.ends(2)}
    assert ends == {"yes": ("Succeed", None), "no": ("Skipped", "filtered")}


async def test_configs_are_read_only_for_filters_that_ask_for_them(site: Site) -> None:
    await rule(site, platform("linux/arm64"))
    index = platforms.index(EACH)
    await site.push("v1", index)
    (end,) = await site.ends(1)
    assert why(end) == ("Succeed", None)
    assert set(site.source.traffic.pulls.values()) == {1}  # by the copy: the index says the platforms


async def test_a_config_that_is_too_large_fails_and_is_not_guessed(site: Site) -> None:
    await rule(site, {"type": "label", "value": "team"})
    padded = json.dumps({**platforms.as_json(AMD), "padding": "x" * (4 * 1024 * 1024)}).encode()
    await site.push("v1", images.image(layers=[b"x"], config=padded))
    (end,) = await site.ends(1)
    assert why(end) == ("Failed", "content_refused")


async def test_full_wants_one_of_the_platforms_and_copies_all(site: Site) -> None:
    await rule(site, platform(["linux/s390x", "linux/arm64"]))
    whole = await site.push("yes", platforms.index(EACH))
    await site.push("no", platforms.index({AMD: EACH[AMD], WINDOWS: EACH[WINDOWS]}))
    ends = {end.tag: end for end in await site.ends(2)}
    assert (why(ends[Tag("yes")]), ends[Tag("yes")].digest) == (("Succeed", None), whole)
    assert [await there(site, child.digest) for child in EACH.values()] == [True] * 3
    assert ends[Tag("no")].error is not None
    assert "it runs on linux/amd64, windows/amd64" in ends[Tag("no")].error.message


async def test_a_single_image_is_judged_by_its_config(site: Site) -> None:
    await rule(site, platform("linux/arm64", "rebuilt"))
    arm = await site.push("arm", EACH[ARM])
    await site.push("amd", EACH[AMD])
    await site.push(
        "chart", images.image(layers=[b"c"], config_type="application/vnd.cncf.helm.config.v1+json")
    )
    ends = {end.tag: end for end in await site.ends(3)}
    assert (why(ends[Tag("arm")]), ends[Tag("arm")].digest) == (("Succeed", None), arm)
    assert ends[Tag("arm")].rebuilt_from is None
    assert why(ends[Tag("amd")]) == why(ends[Tag("chart")]) == ("Skipped", "filtered")


async def test_children_of_which_the_index_says_nothing_are_judged_by_their_configs(site: Site) -> None:
    await rule(site, platform("linux/arm64", "rebuilt"))
    await site.push("v1", platforms.index({"-1": EACH[AMD], "-2": EACH[ARM]}))
    (end,) = await site.ends(1)
    assert why(end) == ("Succeed", None)
    assert [await there(site, EACH[name].digest) for name in (AMD, ARM)] == [False, True]


async def test_rebuilt_is_a_new_index_that_names_the_original_and_is_made_once(site: Site) -> None:
    await rule(site, platform(["linux/arm64", "windows/amd64"], "rebuilt"))
    original = await site.push("v1", platforms.index(EACH, annotations={"by": "ci"}))
    (end,) = await site.ends(1)
    assert (why(end), end.rebuilt_from) == (("Succeed", None), original)
    assert end.digest == await site.holds("v1")
    assert end.digest != original
    made = json.loads(await body(site, Tag("v1")))
    assert [entry["digest"] for entry in made["manifests"]] == [EACH[ARM].digest, EACH[WINDOWS].digest]
    assert made["annotations"] == {"by": "ci", "io.regmesh.original.digest": original}
    assert not await there(site, EACH[AMD].digest)
    assert not await there(site, original)

    await site.event("v1", original)
    again = (await site.ends(2))[1]
    assert (why(again), again.digest, again.rebuilt_from) == (
        ("Skipped", "already_there"),
        end.digest,
        original,
    )
    assert again.bytes_transferred == 0


async def test_rebuilt_of_what_has_only_wanted_platforms_changes_nothing(site: Site) -> None:
    await rule(site, platform(["linux/arm64", "linux/amd64"], "rebuilt"))
    original = await site.push("v1", platforms.index({AMD: EACH[AMD], ARM: EACH[ARM]}))
    (end,) = await site.ends(1)
    assert (why(end), end.digest, end.rebuilt_from) == (("Succeed", None), original, None)


async def test_rebuilt_with_override_false_knows_its_own_work(site: Site) -> None:
    await rule(site, platform("linux/arm64", "rebuilt"), override=False)
    original = await site.push("v1", platforms.index(EACH))
    await site.ends(1)
    await site.event("v1", original)
    assert why((await site.ends(2))[1]) == ("Skipped", "already_there")
    await site.push("v1", platforms.index({AMD: EACH[AMD], ARM: EACH[ARM]}))
    assert why((await site.ends(3))[2]) == ("Skipped", "not_overridden")


@pytest.mark.parametrize("mode", ["sparse", "rebuilt"])
async def test_attestations_come_with_the_image_that_they_are_about(lenient: Site, mode: str) -> None:
    await rule(lenient, platform("linux/arm64", mode))
    index, attestations = platforms.attested(EACH)
    await lenient.push("v1", index)
    (end,) = await lenient.ends(1)
    assert why(end) == ("Succeed", None)
    assert [await there(lenient, attestations[name].digest) for name in EACH] == [False, True, False]


@pytest.mark.parametrize("mode", ["sparse", "rebuilt"])
async def test_an_index_of_indexes(lenient: Site, mode: str) -> None:
    await rule(lenient, platform("linux/arm64", mode))
    inner = [platforms.index({AMD: EACH[AMD], ARM: EACH[ARM]}), platforms.index({WINDOWS: EACH[WINDOWS]})]
    original = await lenient.push("v1", platforms.index({"-1": inner[0], "-2": inner[1]}))
    (end,) = await lenient.ends(1)
    assert why(end) == ("Succeed", None)
    assert [await there(lenient, EACH[name].digest) for name in EACH] == [False, True, False]
    assert end.rebuilt_from == (original if mode == "rebuilt" else None)


async def test_sparse_keeps_the_bytes_and_copies_what_is_wanted(lenient: Site) -> None:
    await rule(lenient, platform("linux/arm64", "sparse"))
    index = platforms.index(EACH)
    original = await lenient.push("v1", index)
    (end,) = await lenient.ends(1)
    assert (why(end), end.digest, end.rebuilt_from) == (("Succeed", None), original, None)
    assert await body(lenient, Tag("v1")) == index.manifest.body
    assert [await there(lenient, EACH[name].digest) for name in EACH] == [False, True, False]
    await lenient.event("v1", original)
    assert why((await lenient.ends(2))[1]) == ("Skipped", "already_there")


async def test_a_platform_that_is_added_to_a_sparse_rule_is_copied(lenient: Site) -> None:
    await rule(lenient, platform("linux/arm64", "sparse"))
    original = await lenient.push("v1", platforms.index(EACH))
    await lenient.ends(1)
    rev = lenient.declare(
        "rule", "release", source="cn", destination="eu", filters=[platform([AMD, ARM], "sparse")]
    )
    await lenient.event("v1", original, rules_rev=await rev)
    assert why((await lenient.ends(2))[1]) == ("Succeed", None)
    assert [await there(lenient, EACH[name].digest) for name in EACH] == [True, True, False]


async def test_a_registry_that_wants_all_of_an_index_fails_a_sparse_copy_at_once(site: Site) -> None:
    await rule(site, platform("linux/arm64", "sparse"))
    await site.push("v1", platforms.index(EACH))
    (end,) = await site.ends(1)
    assert (why(end), end.attempts) == (("Failed", "sparse_refused"), 1)
    assert end.error is not None
    assert end.error.side == "destination"
    assert "use mode rebuilt or full" in end.error.message
    assert await site.holds("v1") is None
