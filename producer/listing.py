"""What an execution wants of its source: repositories, then tags by the filters, then what each tag names.

Names are filtered before anything is asked about them: a tag that the rule does not want costs no request. What is
named twice, as on pages that move while they are read, is found once: it is one task, and tasks are counted by it.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import NamedTuple, TypeGuard, TypeVar

from mesh.clock import Clock
from mesh.concurrency import all_of
from mesh.errors import Denied, NotFound, RegistryError, Rejected, UnreadableNames
from mesh.registry.port import Descriptor, Registry
from mesh.registry.referrers import fallback_tag, is_fallback
from mesh.retry import RetryPolicy, call_with_retries
from mesh.rules.matching.compiled_rule import CompiledRule
from mesh.rules.matching.patterns import compile_pattern
from schemas.completions import Side
from schemas.executions import ExecutionStart
from schemas.names import Repository, Tag
from schemas.rules import NameFilter

_CONCURRENT_REQUESTS = 16  # requests at once
_PLAIN = r"[^*?\[\]{}\\]*"
_LITERAL = re.compile(_PLAIN)
_ALTERNATIVES = re.compile(rf"({_PLAIN})\{{({_PLAIN})\}}({_PLAIN})")

T = TypeVar("T")
N = TypeVar("N", bound=str)


class Found(NamedTuple):
    repository: Repository
    tag: Tag
    descriptor: Descriptor | None  # None: it was asked for by name, and the source does not have it
    has_referrers_tag: bool | None = None  # the list of what is about it; None: not all tags were listed


class _Tags(NamedTuple):
    """Of a repository those that are wanted, and of all of them those that are lists of referrers."""

    wanted: Sequence[Tag]
    of_referrers: AbstractSet[str] | None  # None: not all were listed


class ListingRefused(RegistryError):
    """The registry does not tell what it holds; the message says what to configure."""

    code = "listing_refused"


@dataclass(slots=True)
class Listing:
    """One listing. What could not be listed is in `errors`; what could is listed all the same."""

    registry: Registry
    compiled: CompiledRule
    start: ExecutionStart
    clock: Clock
    random: Callable[[], float]
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    errors: list[RegistryError] = field(default_factory=list)

    async def found(self) -> AsyncGenerator[Found, None]:
        """Every wanted tag that is there, and all that the command names. Raises nothing: what fails is in `errors`.

        A repository that refuses, or a name that cannot be read, does not hide the others; a registry that does not
        answer ends it.
        """
        try:
            for some in _batches(await self._wanted()):
                named = {
                    repository for repository, tags in some if tags
                }  # who named it is told what became of it
                async for one in self._of(some):
                    if one.descriptor is not None or one.repository in named:
                        yield one
        except RegistryError as error:
            self.errors.append(error)

    async def _of(self, some: Sequence[tuple[Repository, Sequence[Tag]]]) -> AsyncIterator[Found]:
        """Of these repositories, asked side by side: over a long way each question by itself would cost its time."""
        refusing = set[Repository]()

        async def or_refused(repository: Repository, ask: Callable[[], Awaitable[T]]) -> T | None:
            try:
                return await ask()
            except (Denied, Rejected) as error:
                if repository not in refusing:
                    self.errors.append(error)
                refusing.add(repository)
                return None

        lists = dict[Repository, AbstractSet[str] | None]()

        async def tags_of(repository: Repository, tags: Sequence[Tag]) -> list[tuple[Repository, Tag]]:
            listed = (
                _Tags(tags, None) if tags else await or_refused(repository, partial(self._tags, repository))
            )
            wanted, lists[repository] = listed or _Tags((), None)
            return [(repository, tag) for tag in wanted]

        listed = await all_of(tags_of(repository, tags) for repository, tags in some)
        for pairs in _batches(pair for of_one in listed for pair in of_one):
            looks = (
                or_refused(name, partial(self._look, name, tag, lists[name]))
                for name, tag in pairs
                if name not in refusing
            )
            for one in await all_of(looks):
                if one is not None:
                    yield one

    async def _wanted(self) -> Iterable[tuple[Repository, Sequence[Tag]]]:
        """Repositories, with the tags that the command names; without any, all are listed."""
        if not self.start.images:
            return [(name, ()) for name in await self._repositories()]
        images: dict[Repository, list[Tag]] = {}
        for image in dict.fromkeys(self.start.images):
            images.setdefault(image.repository, []).append(image.tag)
        return images.items()

    async def _repositories(self) -> list[Repository]:
        names = self._literal_names()
        if names is None:
            names = await self._ask(self._catalog)
        return list(dict.fromkeys(filter(self._wants_repository, names)))

    def _wants_repository(self, name: str) -> bool:
        return self.compiled.wants_repository(name) and _is_asked(self.start.repository, name)

    def _literal_names(self) -> list[Repository] | None:
        """The only repositories that there can be, where that can be said without asking; else None."""
        patterns = [part.value for part in self.compiled.rule.filters if _requires(part)]
        for pattern in (self.start.repository, *patterns):
            if pattern is not None and (names := literals(pattern)) is not None:
                return self._named(names)
        return None

    def _named(self, names: Sequence[str]) -> list[Repository]:
        """Those that there can be; what is asked for by a name that no repository has is told."""
        parsed = {name: _parsed(Repository, name) for name in names}
        wrong = [name for name, found in parsed.items() if found is None and self._wants_repository(name)]
        if wrong:
            where = "what is asked for by name"
            self.errors.append(UnreadableNames(where, wrong, len(wrong), side=Side.SOURCE))
        return [found for found in parsed.values() if found is not None]

    async def _catalog(self) -> list[Repository]:
        try:
            return await self._readable(self.registry.repositories(), self._wants_repository)
        except (Denied, NotFound, Rejected) as error:
            raise ListingRefused(
                "the source does not list its repositories: name them literally in a name filter "
                f"('team/app' or 'team/{{a,b}}'), or give credentials that may read /v2/_catalog ({error})",
                side=Side.SOURCE,
            ) from error

    async def _tags(self, repository: Repository) -> _Tags:
        if self.start.tag is not None and _LITERAL.fullmatch(self.start.tag):
            tag = _parsed(Tag, self.start.tag)
            return _Tags([tag] if tag is not None and self.compiled.wants(repository, tag) else [], None)

        of_referrers = set[str]()

        def wants(tag: str) -> bool:
            return self.compiled.wants(repository, tag) and _is_asked(self.start.tag, tag)

        async def noted() -> AsyncIterator[Tag]:
            async for tag in self.registry.tags(repository):
                if is_fallback(tag):
                    of_referrers.add(tag)
                yield tag

        async def listed() -> _Tags:
            try:
                wanted = await self._readable(noted(), wants)
            except NotFound:
                return _Tags((), None)  # a catalog may name what is gone, or what never had a tag
            return _Tags(list(dict.fromkeys(wanted)), of_referrers)

        return await self._ask(listed)

    async def _readable(self, listed: AsyncIterator[N], wants: Callable[[str], bool]) -> list[N]:
        """What is wanted of a list. What cannot be read of it hides nothing; it is told, unless nobody wants it."""
        found = list[N]()
        try:
            async for name in listed:
                if wants(name):
                    found.append(name)
        except UnreadableNames as error:
            wanted = [name for name in error.names if wants(name)]
            count = (
                error.count - len(error.names) + len(wanted)
            )  # of those that it does not name we cannot know
            if count:
                self.errors.append(UnreadableNames(error.where, wanted, count, side=error.side))
        return found

    async def _look(self, repository: Repository, tag: Tag, of_referrers: AbstractSet[str] | None) -> Found:
        there = await self._ask(lambda: self.registry.resolve(repository, tag))
        if there is None or of_referrers is None or not is_fallback(name := fallback_tag(there.digest)):
            return Found(repository, tag, there)
        return Found(repository, tag, there, name in of_referrers)

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        return await call_with_retries(call, self.retry_policy, clock=self.clock, random=self.random)


def literals(pattern: str) -> list[str] | None:
    """The names that `pattern` describes when they can be counted: `team/app`, `team/{a,b}`; else None."""
    if pattern.startswith("re:"):
        return None
    if _LITERAL.fullmatch(pattern):
        return [pattern]
    if found := _ALTERNATIVES.fullmatch(pattern):
        return [found[1] + middle + found[3] for middle in found[2].split(",")]
    return None


def _is_asked(pattern: str | None, name: str) -> bool:
    return pattern is None or compile_pattern(pattern)(name)


def _requires(part: object) -> TypeGuard[NameFilter]:
    return isinstance(part, NameFilter) and part.decoration == "matches"


def _parsed(kind: Callable[[str], T], text: str) -> T | None:
    try:
        return kind(text)
    except ValueError:
        return None


def _batches(all_of_them: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(all_of_them)
    while some := list(islice(rest, _CONCURRENT_REQUESTS)):
        yield some
