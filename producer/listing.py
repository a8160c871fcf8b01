"""Listing what an execution wants of its source: repositories, then their tags, then what each tag names.

Names are filtered first: a tag that the rule does not want costs no request. A name that is listed twice, as on pages
that change while they are read, is found once: it is one task, and tasks are counted.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import NamedTuple, Protocol, TypeGuard, TypeVar

from mesh.clock import Clock
from mesh.concurrency import all_of
from mesh.errors import (
    AbsenceUnconfirmed,
    ConfirmedNotFound,
    Denied,
    NotFound,
    RegistryError,
    Rejected,
    UnreadableNames,
)
from mesh.registry.absence import resolve_confirmed
from mesh.registry.port import Descriptor, Registry
from mesh.registry.referrers import cosign_tags, fallback_tag, is_fallback, subject_named
from mesh.retry import call_with_retries
from mesh.rules.matching.compiled_rule import CompiledRule
from mesh.rules.matching.patterns import compile_pattern
from producer.settings import ProducerSettings
from schemas.completions import Side
from schemas.executions import ImageName
from schemas.names import Repository, Tag
from schemas.rules import NameFilter

_PLAIN = r"[^*?\[\]{}\\]*"
_LITERAL = re.compile(_PLAIN)
_ALTERNATIVES = re.compile(rf"({_PLAIN})\{{({_PLAIN})\}}({_PLAIN})")

T = TypeVar("T")
N = TypeVar("N", bound=str)


class Scope(Protocol):
    """What of a rule is listed, as `schemas.executions.ExecutionStart` states it."""

    @property
    def repository(self) -> str | None:
        """Pattern of the repositories; None for all."""
        ...

    @property
    def tag(self) -> str | None:
        """Pattern of the tags; None for all."""
        ...

    @property
    def images(self) -> Sequence[ImageName]:
        """The images that are asked for by name, without a listing; empty for a listing."""
        ...


class Found(NamedTuple):
    """A wanted tag at the source.

    `descriptor` is None for an image that is asked for by name and that the source does not have. `has_referrers_tag`
    says whether the repository has a fallback tag that lists referrers of the image; None when its tags were not
    listed. `cosign_tags` are the listed tags of cosign's scheme about the image.
    """

    repository: Repository
    tag: Tag
    descriptor: Descriptor | None
    has_referrers_tag: bool | None = None
    cosign_tags: Sequence[Tag] = ()


class _Tags(NamedTuple):
    """The wanted tags of a repository, and all its tags of referrers; None when its tags were not listed."""

    wanted: Sequence[Tag]
    of_referrers: AbstractSet[str] | None


class ListingRefused(RegistryError):
    """The registry does not list its repositories; the message says what to configure."""

    code = "listing_refused"


@dataclass(slots=True)
class Listing:
    """One listing. `errors` collects what could not be listed; everything else is listed nevertheless."""

    registry: Registry
    compiled: CompiledRule
    scope: Scope
    clock: Clock
    random: Callable[[], float]
    settings: ProducerSettings = field(default_factory=ProducerSettings)
    errors: list[RegistryError] = field(default_factory=list)

    async def found(self) -> AsyncGenerator[Found, None]:
        """Yields every wanted tag that exists, and every image that the command names. Errors go to `errors`.

        A repository that refuses, or an invalid name, does not hide the others. A registry that does not answer ends
        the listing.
        """
        try:
            for batch in self._batches(await self._wanted()):
                named = {repository for repository, tags in batch if tags}
                async for one in self._found_in(batch):
                    # Whoever named an image learns its outcome, also when the source does not have it.
                    if one.descriptor is not None or one.repository in named:
                        yield one
        except RegistryError as error:
            self.errors.append(error)

    async def _found_in(self, batch: Sequence[tuple[Repository, Sequence[Tag]]]) -> AsyncIterator[Found]:
        """Asks about several repositories concurrently, since each request over a long distance takes its time."""
        refusing = set[Repository]()

        async def unless_refused(repository: Repository, ask: Callable[[], Awaitable[T]]) -> T | None:
            try:
                return await ask()
            except (Denied, Rejected) as error:
                if repository not in refusing:
                    self.errors.append(error)
                refusing.add(repository)
                return None

        referrer_tags = dict[Repository, AbstractSet[str] | None]()

        async def tags_of(repository: Repository, tags: Sequence[Tag]) -> list[tuple[Repository, Tag]]:
            listed = (
                _Tags(tags, None)
                if tags
                else await unless_refused(repository, partial(self._tags, repository))
            )
            wanted, referrer_tags[repository] = listed or _Tags((), None)
            return [(repository, tag) for tag in wanted]

        listed = await all_of(tags_of(repository, tags) for repository, tags in batch)
        for pairs in self._batches(chain.from_iterable(listed)):
            resolved = await all_of(
                unless_refused(name, partial(self._resolve, name, tag, referrer_tags[name]))
                for name, tag in pairs
                if name not in refusing
            )
            for one in resolved:
                if one is not None:
                    yield one

    async def _wanted(self) -> Iterable[tuple[Repository, Sequence[Tag]]]:
        """Returns repositories with the tags that the command names; without tags, all tags are listed."""
        if not self.scope.images:
            return [(name, ()) for name in await self._repositories()]
        images: dict[Repository, list[Tag]] = {}
        for image in dict.fromkeys(self.scope.images):
            images.setdefault(image.repository, []).append(image.tag)
        return images.items()

    async def _repositories(self) -> list[Repository]:
        names = self._literal_names()
        if names is None:
            names = await self._with_retries(self._catalog)
        return list(dict.fromkeys(filter(self._wants_repository, names)))

    def _wants_repository(self, name: str) -> bool:
        return self.compiled.wants_repository(name) and matches(self.scope.repository, name)

    def _literal_names(self) -> list[Repository] | None:
        """Returns all possible repositories when a pattern enumerates them, else None."""
        patterns = [part.value for part in self.compiled.rule.filters if _requires_name(part)]
        for pattern in (self.scope.repository, *patterns):
            if pattern is not None and (names := literals(pattern)) is not None:
                return self._valid(names)
        return None

    def _valid(self, names: Sequence[str]) -> list[Repository]:
        """Returns the names that repositories can have; wanted ones that none can have are an error."""
        parsed = {name: _parsed(Repository, name) for name in names}
        wrong = [name for name, found in parsed.items() if found is None and self._wants_repository(name)]
        if wrong:
            where = "what is asked for by name"
            self.errors.append(UnreadableNames(where, wrong, len(wrong), side=Side.SOURCE))
        return [found for found in parsed.values() if found is not None]

    async def _catalog(self) -> list[Repository]:
        try:
            return await self._filtered(self.registry.repositories(), self._wants_repository)
        except (Denied, NotFound, Rejected) as error:
            raise ListingRefused(
                "the source does not list its repositories: name them literally in a name filter "
                f"('team/app' or 'team/{{a,b}}'), or give credentials that may read /v2/_catalog ({error})",
                side=Side.SOURCE,
            ) from error

    async def _tags(self, repository: Repository) -> _Tags:
        if self.scope.tag is not None and _LITERAL.fullmatch(self.scope.tag):
            tag = _parsed(Tag, self.scope.tag)
            return _Tags([tag] if tag is not None and self.compiled.wants(repository, tag) else [], None)

        of_referrers = set[str]()

        def wants(tag: str) -> bool:
            return self.compiled.wants(repository, tag) and matches(self.scope.tag, tag)

        async def noting_referrer_tags() -> AsyncIterator[Tag]:
            async for tag in self.registry.tags(repository):
                if subject_named(tag) is not None:
                    of_referrers.add(tag)
                yield tag

        async def listed() -> _Tags:
            try:
                wanted = await self._filtered(noting_referrer_tags(), wants)
            except ConfirmedNotFound:  # a catalog may name deleted repositories, or ones that never had a tag
                return _Tags((), None)
            except NotFound as error:  # a listing without them would pass for complete
                raise AbsenceUnconfirmed(
                    f"a 404 that is not the registry's own proves nothing about {repository}: {error}",
                    side=error.side, status=error.status,
                ) from error  # fmt: skip
            return _Tags(list(dict.fromkeys(wanted)), of_referrers)

        return await self._with_retries(listed)

    async def _filtered(self, listed: AsyncIterator[N], wants: Callable[[str], bool]) -> list[N]:
        """Returns the wanted names of a list. Invalid names do not end it; they are an error if they are wanted."""
        found = list[N]()
        try:
            async for name in listed:
                if wants(name):
                    found.append(name)
        except UnreadableNames as error:
            wanted = [name for name in error.names if wants(name)]
            unnamed = error.count - len(error.names)  # nobody knows whether these are wanted
            if count := unnamed + len(wanted):
                self.errors.append(UnreadableNames(error.where, wanted, count, side=error.side))
        return found

    async def _resolve(
        self, repository: Repository, tag: Tag, of_referrers: AbstractSet[str] | None
    ) -> Found:
        if of_referrers is None:
            return Found(
                repository, tag, await self._with_retries(lambda: self.registry.resolve(repository, tag))
            )
        descriptor = await self._with_retries(  # its registry has just listed the tag
            lambda: resolve_confirmed(self.registry, repository, tag, clock=self.clock)
        )
        if descriptor is None:
            return Found(repository, tag, None)
        name = fallback_tag(descriptor.digest)
        has_fallback = name in of_referrers if is_fallback(name) else None
        cosign = tuple(one for one in cosign_tags(descriptor.digest) if one in of_referrers)
        return Found(repository, tag, descriptor, has_fallback, cosign)

    async def _with_retries(self, call: Callable[[], Awaitable[T]]) -> T:
        policy = self.settings.retry_policy
        return await call_with_retries(call, policy, clock=self.clock, random=self.random)

    def _batches(self, items: Iterable[T]) -> Iterator[list[T]]:
        """Yields the items in lists, each as long as there may be concurrent requests."""
        rest = iter(items)
        while batch := list(islice(rest, self.settings.listing_requests)):
            yield batch


def literals(pattern: str) -> list[str] | None:
    """Returns the names that a pattern enumerates, as `team/app` and `team/{a,b}` do; None for other patterns."""
    if pattern.startswith("re:"):
        return None
    if _LITERAL.fullmatch(pattern):
        return [pattern]
    if found := _ALTERNATIVES.fullmatch(pattern):
        return [found[1] + middle + found[3] for middle in found[2].split(",")]
    return None


def matches(pattern: str | None, name: str) -> bool:
    """Returns whether a name matches a pattern; None matches all."""
    return pattern is None or compile_pattern(pattern)(name)


def _requires_name(part: object) -> TypeGuard[NameFilter]:
    return isinstance(part, NameFilter) and part.decoration == "matches"


def _parsed(kind: Callable[[str], T], text: str) -> T | None:
    try:
        return kind(text)
    except ValueError:
        return None
