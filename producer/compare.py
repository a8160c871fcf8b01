"""Compares what two registries hold, tag by tag, by asking both of them.

What differs is looked at again at the end, some seconds later: a push may be on its way while the comparison runs. So a
difference was seen twice.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, TypeVar

from mesh.clock import Clock
from mesh.concurrency import map_concurrently
from mesh.errors import Denied, NotFound, RegistryError, Rejected, UnreadableNames
from mesh.registry.absence import resolve_confirmed
from mesh.registry.port import Registry
from mesh.registry.referrers import cosign_tags, is_fallback
from mesh.retry import call_with_retries
from mesh.rules import naming
from mesh.rules.matching.compiled_rule import CompiledRule
from producer.content import ContentCheck
from producer.listing import Found, Listing, Scope, matches
from producer.settings import ProducerSettings
from schemas.names import Digest, Repository, Tag

T = TypeVar("T")
S = TypeVar("S")

_SECOND_LOOK_SECONDS = 5.0  # after the first; most pushes are copied within that


class Kind(StrEnum):
    """What is wrong with one tag at the destination."""

    MISSING = "missing"
    DIFFERENT = "different"
    EXTRA = "extra"  # the source does not have it
    REFERRER_MISSING = (
        "referrer_missing"  # the tags are equal, and something attached to the image is missing
    )
    CONTENT_MISSING = "content_missing"  # the tags are equal, and a manifest or blob below is missing
    UNDECIDED = "undecided"  # missing or different, and the rule's filters on content may be the reason


@dataclass(frozen=True, slots=True)
class Difference:
    """One tag that differs.

    Attributes:
        kind: What is wrong.
        repository: At the source.
        destination_repository: At the destination.
        tag: The tag.
        source: What the source holds; None for nothing.
        destination: What the destination holds; None for nothing.
        detail: More about it, for people; empty where the kind says all.
    """

    kind: Kind
    repository: Repository
    destination_repository: Repository
    tag: Tag
    source: Digest | None
    destination: Digest | None
    detail: str = ""


class _Names(NamedTuple):
    repository: Repository
    destination_repository: Repository
    tag: Tag


@dataclass(slots=True)
class Comparison:
    """One comparison.

    Attributes:
        source: The registry that decides what should be there.
        destination: The registry that is compared with it.
        compiled: The rule whose filters and mapping of names apply.
        scope: What of the rule is compared.
        deep: Whether to look at everything below each tag that is equal.
        compared: How many tags were compared so far.
        suspects: How many of them differed at the first look.
        errors: What could not be compared; everything else is compared nevertheless.
    """

    source: Registry
    destination: Registry
    compiled: CompiledRule
    scope: Scope
    clock: Clock
    random: Callable[[], float]
    settings: ProducerSettings = field(default_factory=ProducerSettings)
    deep: bool = False
    compared: int = 0
    suspects: int = 0
    errors: list[RegistryError] = field(default_factory=list)
    _seen: dict[Repository, tuple[Repository, set[Tag]]] = field(
        default_factory=dict
    )  # by destination's name
    _content: ContentCheck = field(init=False)

    def __post_init__(self) -> None:
        self._content = ContentCheck(self.destination, self._with_retries)

    async def differences(self) -> list[Difference]:
        """Compares all, and returns what differs by repository and tag.

        A registry that does not answer ends the comparison; `errors` then says so.
        """
        suspects = list[_Names]()
        try:
            async for names in self._first_look():
                suspects.append(names)
            async for names in self._only_at_destination():
                suspects.append(names)
            if not suspects:
                return []
            await self.clock.sleep(_SECOND_LOOK_SECONDS)
            found = [one async for one in self._concurrently(_each(suspects), self._second_look)]
        except RegistryError as error:
            self.errors.append(error)
            return []
        return sorted(found, key=lambda it: (it.destination_repository, it.tag))

    async def _first_look(self) -> AsyncIterator[_Names]:
        listing = Listing(
            self.source, self.compiled, self.scope, self.clock, self.random, self.settings, self.errors
        )
        async with aclosing(listing.found()) as listed:
            async for names in self._concurrently(listed, self._suspect):
                self.suspects += 1
                yield names

    async def _suspect(self, found: Found) -> _Names | None:
        """Returns the tag unless it is the same at both ends."""
        if is_fallback(found.tag):
            return None  # a list of referrers, which each registry keeps in its own way
        try:
            name = naming.destination_of(self.compiled.rule, found.repository)
        except naming.Unmappable:
            return None  # the rule does not copy it
        names = _Names(found.repository, name, found.tag)
        self._seen.setdefault(name, (found.repository, set()))[1].add(found.tag)
        there = await self._with_retries(lambda: self.destination.resolve(name, found.tag))
        self.compared += 1
        if found.descriptor is None or there is None or there.digest != found.descriptor.digest:
            return names
        return names if await self._wrong_below(names, there.digest, found) is not None else None

    async def _second_look(self, names: _Names) -> Difference | None:
        source = await self._resolve_confirmed(self.source, names.repository, names.tag)
        there = await self._resolve_confirmed(self.destination, names.destination_repository, names.tag)
        if source is None and there is None:
            return None
        if source == there and there is not None:
            return await self._wrong_below(names, there, None)
        kind = Kind.DIFFERENT
        if source is None or there is None:
            kind = Kind.EXTRA if source is None else Kind.MISSING
        detail = ""
        if kind is not Kind.EXTRA and (filters := _content_filters(self.compiled)):
            kind, detail = Kind.UNDECIDED, f"depends on the {filters} filter; a dry run of the rule decides"
        return Difference(kind, *names, source, there, detail)

    async def _wrong_below(self, names: _Names, digest: Digest, found: Found | None) -> Difference | None:
        """Returns what is wrong though both tags name the same digest."""
        lost = await self._lost_referrers(names, digest, found)
        if lost:
            detail = f"{len(lost)} missing, such as {lost[0]}"
            return Difference(Kind.REFERRER_MISSING, *names, digest, digest, detail)
        if self.deep:
            missing = await self._content.first_missing(names.destination_repository, digest)
            if missing is not None:
                return Difference(Kind.CONTENT_MISSING, *names, digest, digest, missing)
        return None

    async def _lost_referrers(self, names: _Names, digest: Digest, found: Found | None) -> list[str]:
        """Returns digests and cosign tags that the source has about the image, and the destination has not."""
        has_no_tag = found is not None and found.has_referrers_tag is False
        wanted = await self._with_retries(
            lambda: self.source.referrers(names.repository, digest, has_no_tag=has_no_tag)
        )
        lost = list[str]()
        if wanted:
            listed = await self._with_retries(
                lambda: self.destination.referrers(names.destination_repository, digest)
            )
            there = {one.descriptor.digest for one in listed}
            lost += [one.descriptor.digest for one in wanted if one.descriptor.digest not in there]
        tags = cosign_tags(digest) if found is None else found.cosign_tags
        for tag in tags:
            if not self._is_wanted(names.repository, tag) and await self._lacks_tag(names, tag):
                lost.append(tag)
        return lost

    async def _lacks_tag(self, names: _Names, tag: Tag) -> bool:
        source = await self._with_retries(lambda: self.source.resolve(names.repository, tag))
        if source is None:
            return False
        there = await self._with_retries(lambda: self.destination.resolve(names.destination_repository, tag))
        return there is None

    async def _only_at_destination(self) -> AsyncIterator[_Names]:
        """Yields the destination's tags that the rule wants by name and the listing of the source did not find."""
        if self.scope.images:
            return
        for name, (repository, listed) in (await self._destination_repositories()).items():
            async for tag in self._tags(name):
                if tag not in listed and self._is_wanted(repository, tag) and not is_fallback(tag):
                    self.suspects += 1
                    yield _Names(repository, name, tag)

    async def _destination_repositories(self) -> dict[Repository, tuple[Repository, set[Tag]]]:
        """Returns the repositories to list at the destination: those of the source's, and what the catalog names.

        A destination without a catalog is not asked about repositories that the source does not have.
        """
        found = dict(self._seen)
        if not naming.is_injective(self.compiled.rule):
            return found
        try:
            async for name in self.destination.repositories():
                source = naming.source_of(self.compiled.rule, name)
                if source is not None and name not in found and self._wants_repository(source):
                    found[name] = (source, set())
        except (Denied, NotFound, Rejected):
            pass
        except UnreadableNames as error:
            self.errors.append(error)
        return found

    async def _tags(self, repository: Repository) -> AsyncIterator[Tag]:
        try:
            async for tag in self.destination.tags(repository):
                yield tag
        except NotFound:
            return
        except (Denied, Rejected, UnreadableNames) as error:
            self.errors.append(error)

    def _wants_repository(self, name: Repository) -> bool:
        return self.compiled.wants_repository(name) and matches(self.scope.repository, name)

    def _is_wanted(self, repository: Repository, tag: Tag) -> bool:
        return self.compiled.wants(repository, tag) and matches(self.scope.tag, tag)

    async def _resolve_confirmed(self, registry: Registry, repository: Repository, tag: Tag) -> Digest | None:
        found = await self._with_retries(
            lambda: resolve_confirmed(registry, repository, tag, clock=self.clock)
        )
        return found.digest if found is not None else None

    def _concurrently(
        self, items: AsyncIterator[S], job: Callable[[S], Awaitable[T | None]]
    ) -> AsyncIterator[T]:
        """Yields what `job` returns for the items, without None, in no order. Errors of single items go to `errors`."""

        async def unless_refused(item: S) -> T | None:
            try:
                return await job(item)
            except RegistryError as error:
                if error.retryable:
                    raise  # the registry does not answer, and would not answer for the others
                self.errors.append(error)
                return None

        return map_concurrently(items, unless_refused, limit=self.settings.listing_requests)

    async def _with_retries(self, call: Callable[[], Awaitable[T]]) -> T:
        policy = self.settings.retry_policy
        return await call_with_retries(call, policy, clock=self.clock, random=self.random)


async def _each(items: Iterable[S]) -> AsyncIterator[S]:
    for item in items:
        yield item


def _content_filters(compiled: CompiledRule) -> str:
    """Returns the types of the rule's filters that need the image itself to decide."""
    types = {part.type for part in compiled.rule.filters if part.type in ("resource", "label", "platform")}
    return ", ".join(sorted(types))
