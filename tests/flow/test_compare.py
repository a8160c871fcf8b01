"""A comparison of two built-in registries: which kinds it finds, what it looks at again, and what it skips."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from mesh.errors import Denied
from mesh.registry.client import open_endpoint
from mesh.registry.port import Descriptor, Registry
from mesh.rules.matching.compiled_rule import CompiledRule
from producer.compare import Comparison, Difference, Kind
from schemas.completions import Side
from schemas.executions import ImageName
from schemas.names import Repository, Tag
from schemas.rules import NameFilter, ResourceFilter, Rule, TagFilter
from tests.support import attached, images, registries
from tests.support.manual_clock import ManualClock

APP = Repository("game/app")
MIRRORED = Repository("mirror/app")
ONE, TWO = images.image(layers=[b"one"]), images.image(layers=[b"two"])


@dataclass(frozen=True)
class Scope:
    """A pattern of tags, or all."""

    tag: str | None
    repository: str | None = None
    images: tuple[ImageName, ...] = ()


class Clock(ManualClock):
    """Runs what the test does between the two looks, while the comparison sleeps for the first time."""

    def __init__(self) -> None:
        super().__init__(datetime(2026, 3, 1, tzinfo=UTC))
        self.between_looks: Callable[[], Awaitable[None]] | None = None
        self.looks = 1

    async def sleep(self, seconds: float) -> None:
        if seconds == 5.0:
            self.looks += 1
            if self.between_looks is not None:
                await self.between_looks()
        await super().sleep(seconds)


@dataclass
class Ends:
    """A source and a destination."""

    source: Registry
    destination: Registry
    clock: Clock = field(default_factory=Clock)

    def comparison(
        self, rule: Rule | None = None, *, tag: str | None = None, deep: bool = False
    ) -> Comparison:
        scope = Scope(tag)
        compiled = CompiledRule(rule or a_rule())
        return Comparison(self.source, self.destination, compiled, scope, self.clock, lambda: 0.5, deep=deep)

    async def kinds(self, rule: Rule | None = None, *, tag: str | None = None) -> dict[str, Kind]:
        comparison = self.comparison(rule, tag=tag)
        found = await comparison.differences()
        assert comparison.errors == []
        return {f"{one.destination_repository}:{one.tag}": one.kind for one in found}


@pytest.fixture
async def ends(tmp_path: Path) -> AsyncIterator[Ends]:
    async with AsyncExitStack() as stack:
        opened = []
        for name, side in (("source", Side.SOURCE), ("destination", Side.DESTINATION)):
            url = await stack.enter_async_context(registries.builtin(tmp_path / name))
            endpoint = open_endpoint(name, url, None)
            stack.push_async_callback(endpoint.close)
            opened.append(endpoint.registry(side))
        yield Ends(*opened)


async def test_equal_registries_are_looked_at_once(ends: Ends) -> None:
    for end in (ends.source, ends.destination):
        await images.push(end, APP, Tag("v1"), ONE)
    comparison = ends.comparison()
    assert await comparison.differences() == []
    assert (comparison.compared, comparison.suspects, ends.clock.looks) == (1, 0, 1)


async def test_each_kind_of_difference_is_found_under_the_names_of_the_rule(ends: Ends) -> None:
    await images.push(ends.source, APP, Tag("missing"), ONE)
    await images.push(ends.source, APP, Tag("different"), ONE)
    await images.push(ends.destination, MIRRORED, Tag("different"), TWO)
    await images.push(ends.destination, MIRRORED, Tag("extra"), TWO)
    rule = a_rule(destination_namespace="mirror", destination_namespace_replace_count=1)
    found = await ends.comparison(rule).differences()
    assert found == [
        Difference(Kind.DIFFERENT, APP, MIRRORED, Tag("different"), ONE.digest, TWO.digest, ""),
        Difference(Kind.EXTRA, APP, MIRRORED, Tag("extra"), None, TWO.digest, ""),
        Difference(Kind.MISSING, APP, MIRRORED, Tag("missing"), ONE.digest, None, ""),
    ]


async def test_what_is_copied_between_the_looks_is_no_difference(ends: Ends) -> None:
    await images.push(ends.source, APP, Tag("v1"), ONE)
    await images.push(ends.source, APP, Tag("v2"), ONE)

    async def copied() -> None:
        await images.push(ends.destination, APP, Tag("v1"), ONE)

    ends.clock.between_looks = copied
    assert await ends.kinds() == {f"{APP}:v2": Kind.MISSING}


async def test_what_the_rule_or_the_scope_leaves_out_is_not_compared(ends: Ends) -> None:
    for tag in ("v1", "v2", "dev"):
        await images.push(ends.source, APP, Tag(tag), ONE)
        await images.push(ends.source, Repository("other/app"), Tag(tag), ONE)
        await images.push(ends.destination, Repository("third/app"), Tag(tag), ONE)
    rule = a_rule(filters=(NameFilter(type="name", value="game/**"), TagFilter(type="tag", value="v*")))
    assert await ends.kinds(rule) == {f"{APP}:v1": Kind.MISSING, f"{APP}:v2": Kind.MISSING}
    assert await ends.kinds(rule, tag="v2") == {f"{APP}:v2": Kind.MISSING}


async def test_a_filter_on_content_leaves_a_difference_undecided(ends: Ends) -> None:
    await images.push(ends.source, APP, Tag("v1"), ONE)
    await images.push(ends.destination, APP, Tag("old"), ONE)
    rule = a_rule(filters=(ResourceFilter(type="resource", value="chart"),))
    assert await ends.kinds(rule) == {f"{APP}:v1": Kind.UNDECIDED, f"{APP}:old": Kind.EXTRA}


async def test_a_lost_signature_is_found_in_both_forms(ends: Ends) -> None:
    signature = attached.attachment(ONE.manifest, attached.SIGNATURE, b"signed")
    by_tag = Tag(attached.cosign_tag(TWO.digest, "sig"))
    for end in (ends.source, ends.destination):
        await images.push(end, APP, Tag("v1"), ONE)
        await images.push(end, APP, Tag("v2"), TWO)
    await attached.push(ends.source, APP, ONE.manifest, signature)
    await images.push(ends.source, APP, by_tag, signature)
    rule = a_rule(filters=(TagFilter(type="tag", value="v*"),))
    found = {one.tag: (one.kind, one.detail) for one in await ends.comparison(rule).differences()}
    assert found == {
        "v1": (Kind.REFERRER_MISSING, f"1 missing, such as {signature.digest}"),
        "v2": (Kind.REFERRER_MISSING, f"1 missing, such as {by_tag}"),
    }


class RefusesPrivate:
    """A registry that refuses tags of one repository."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)

    async def resolve(self, repository: Repository, tag: Tag) -> Descriptor | None:
        if repository == "private/app":
            raise Denied("no", side=Side.DESTINATION)
        return await self._registry.resolve(repository, tag)


async def test_a_repository_that_is_refused_hides_no_other(ends: Ends) -> None:
    for repository in (APP, Repository("private/app")):
        await images.push(ends.source, repository, Tag("v1"), ONE)
    ends.destination = cast(Registry, RefusesPrivate(ends.destination))
    comparison = ends.comparison()
    found = await comparison.differences()
    assert [one.destination_repository for one in found] == [APP]
    assert [type(error) for error in comparison.errors] == [Denied]


def a_rule(**fields: object) -> Rule:
    names = {"name": "copy", "source": "game", "destination": "mirror"}
    return Rule.model_validate({**names, **fields})
