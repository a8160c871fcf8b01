"""A listing: many repositories concurrently, and one that refuses hides no other."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from mesh.clock import SystemClock
from mesh.errors import ConfirmedNotFound, Denied, NotFound, RegistryError, Unreachable, UnreadableNames
from mesh.registry.manifests import OCI_MANIFEST
from mesh.registry.port import Descriptor, Manifest
from mesh.rules.matching.compiled_rule import CompiledRule
from producer.listing import Listing
from producer.settings import ProducerSettings
from schemas.completions import Side
from schemas.executions import ExecutionStart
from schemas.names import Digest, ObjectName, PlaceName, Region, Repository, Tag
from schemas.rules import NameFilter, Rule

IMAGE = Descriptor(OCI_MANIFEST, Digest("sha256:" + "0" * 64), 1)


class Registry:
    """Repositories with their tags, True, or False for one that is deleted, or None for one that a proxy hides.

    An error in place of tags, or of a tag, is raised. Counts what runs at once.
    """

    def __init__(self, holds: Mapping[str, Any], *, concurrently: int = 1) -> None:
        self.holds, self.concurrently = holds, concurrently
        self.most = self._running = 0
        self._enough = asyncio.Event()
        self.asked, self.strange = list[str](), list[str]()

    async def repositories(self) -> AsyncIterator[Repository]:
        for name in self.holds:
            yield Repository(name)
        if self.strange:
            raise UnreadableNames("the list", self.strange[:2], len(self.strange), side=Side.SOURCE)

    async def tags(self, repository: Repository) -> AsyncIterator[Tag]:
        await self._meet()
        found = self.holds[repository]
        if isinstance(found, RegistryError):
            raise found
        for tag in found:
            yield Tag(tag)

    async def resolve(self, repository: Repository, tag: Tag) -> Descriptor | None:
        self.asked.append(f"{repository}:{tag}")
        if isinstance(found := self.holds[repository][tag], RegistryError):
            raise found
        return IMAGE if found else None

    async def read_manifest(self, repository: Repository, tag: Tag) -> Manifest:
        found = self.holds[repository][tag]
        if found:
            return Manifest(IMAGE, b"{}")
        self.asked.append(f"GET {repository}:{tag}")
        raise (NotFound if found is None else ConfirmedNotFound)("404", side=Side.SOURCE, status=404)

    async def ping(self) -> None:
        self.asked.append("/v2/")

    async def _meet(self) -> None:
        """Waits until `concurrently` callers have arrived."""
        self._running += 1
        if self._running >= self.concurrently:
            self._enough.set()
        await self._enough.wait()


def listing(registry: Registry, name: str = "**", tag: str | None = None) -> Listing:
    filters = (NameFilter(type="name", value=name),)
    rule = Rule(
        name=ObjectName("all"), source=ObjectName("cn"), destination=ObjectName("eu"), filters=filters
    )
    start = ExecutionStart(
        id="start", time=datetime(2026, 1, 1, tzinfo=UTC), execution_id="e", region=Region("beijing"),
        rule=PlaceName("all"), source=ObjectName("cn"), trigger="manual", rules_rev=-1,
        tag=tag,
    )  # fmt: skip
    once = ProducerSettings(listing_attempts=1)
    return Listing(registry, CompiledRule(rule), start, SystemClock(), lambda: 0.5, once)  # type: ignore[arg-type]


async def names(one: Listing) -> list[str]:
    return [f"{found.repository}:{found.tag}" async for found in one.found()]


async def test_repositories_are_asked_concurrently_and_found_in_their_order() -> None:
    registry = Registry({f"r{number}": {"a": True, "b": True} for number in range(8)}, concurrently=8)
    one = listing(registry)
    async with asyncio.timeout(10):
        assert await names(one) == [f"r{number}:{tag}" for number in range(8) for tag in "ab"]
    assert one.errors == []


async def test_more_repositories_than_are_asked_at_once_are_all_found() -> None:
    registry = Registry({f"r{number}": {"a": True} for number in range(50)})
    assert len(await names(listing(registry))) == 50


async def test_a_repository_that_refuses_is_one_error_and_hides_no_other() -> None:
    no = Denied("no", side=Side.SOURCE)
    many = {f"t{number}": no for number in range(40)}
    registry = Registry({"closed": no, "half": {"a": True} | many, "open": {"a": True, "deleted": False}})
    one = listing(registry)
    assert await names(one) == ["half:a", "open:a"]
    assert one.errors == [no, no]
    assert len([name for name in registry.asked if name.startswith("half:")]) < 40


async def test_a_registry_that_does_not_answer_ends_it_with_an_error() -> None:
    away = Unreachable("away", side=Side.SOURCE)
    registry = Registry({f"r{number}": {"a": True} for number in range(16)} | {"last": away})
    one = listing(registry)
    assert len(await names(one)) == 16
    assert one.errors == [away]


async def test_invalid_names_are_one_error_and_hide_no_other() -> None:
    registry = Registry({"open": {"a": True}})
    registry.strange = ["Team/App", "Team/Web"]
    one = listing(registry)
    assert await names(one) == ["open:a"]
    assert [str(error) for error in one.errors] == [
        "2 names are not valid for a repository or tag: 'Team/App', 'Team/Web' (in the list)"
    ]


async def test_invalid_names_that_are_not_wanted_are_no_error() -> None:
    registry = Registry({"open": {"a": True}})
    registry.strange = ["Team/App", "Team/Web"]
    one = listing(registry, "open*")
    assert (await names(one), one.errors) == (["open:a"], [])
    registry.strange = ["Team/App", "Team/Web", "the list does not say this one"]
    one = listing(registry, "open*")
    assert await names(one) == ["open:a"]
    assert [str(error) for error in one.errors] == [
        "1 name is not valid for a repository or tag (in the list)"
    ]


async def test_a_name_that_no_repository_can_have_is_an_error_when_it_is_asked_for() -> None:
    registry = Registry({"team/a": {"v1": True}})
    one = listing(registry, "team/{a,B}")
    assert await names(one) == ["team/a:v1"]
    assert [str(error) for error in one.errors] == [
        "1 name is not valid for a repository or tag: 'team/B' (in what is asked for by name)"
    ]


async def test_it_reports_whether_it_saw_the_fallback_tag_of_an_image() -> None:
    listed = f"sha256-{'0' * 64}"
    registry = Registry({"signed": {"a": True, listed: True}, "plain": {"a": True, f"{listed}.sig": True}})
    found = {(it.repository, it.tag): it.has_referrers_tag async for it in listing(registry).found()}
    assert (found["signed", "a"], found["plain", "a"]) == (True, False)


async def test_of_a_tag_that_is_named_it_reports_no_others() -> None:
    one = listing(Registry({"app": {"a": True}}), tag="a")
    assert [it.has_referrers_tag async for it in one.found()] == [None]


async def test_a_repository_that_its_registry_does_not_know_any_more_is_empty() -> None:
    missing = ConfirmedNotFound("404: NAME_UNKNOWN", side=Side.SOURCE, status=404)
    one = listing(Registry({"app": {"v1": True}, "old": missing}))
    assert await names(one) == ["app:v1"]
    assert one.errors == []


async def test_a_404_that_is_not_the_registrys_own_does_not_make_a_listing_complete() -> None:
    page = NotFound("404: <html>no such page</html>", side=Side.SOURCE, status=404)
    one = listing(Registry({"app": {"v1": True}, "behind-an-ingress": page}))
    await names(one)
    assert [error.code for error in one.errors] == ["absence_unconfirmed"]


async def test_a_tag_that_was_listed_and_is_not_there_counts_when_the_registry_says_so_twice() -> None:
    registry = Registry({"app": {"v1": True, "deleted": False}})
    one = listing(registry)
    assert await names(one) == ["app:v1"]
    assert one.errors == []
    assert registry.asked.count("GET app:deleted") == registry.asked.count("/v2/") == 2


async def test_a_tag_that_was_listed_and_that_a_proxy_denies_ends_the_listing() -> None:
    one = listing(Registry({"app": {"v1": True, "hidden": None}}))
    await names(one)
    assert [error.code for error in one.errors] == ["absence_unconfirmed"]
