"""`/api/v1/images` and `/api/v1/explain`: which place holds an image, and which rules match it."""

from collections.abc import Collection
from dataclasses import asdict

from aiohttp import web

from mesh.clock import Clock
from mesh.control.http.answers import answer_list
from mesh.control.http.requests import NoSuchResource, limit_of, parameters
from mesh.control.images.store import Images
from mesh.control.images.where import ExpectedPlace, KnownTags, expected_places, tag_as_json
from mesh.control.storage.paging import MAX_LIMIT
from mesh.errors import InvalidInput, clean
from mesh.rules.explain import explain
from mesh.rules.state import MeshState
from mesh.rules.validation.messages import name_hint
from schemas.names import Repository, Tag
from schemas.topology import Instance, Place


class ImagesResource:
    """Answers about one repository of an instance."""

    def __init__(self, images: Images, *, state: MeshState, clock: Clock) -> None:
        self._images, self._state, self._clock = images, state, clock

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/images/{instance}/{repository:.+}", self.where)
        router.add_get("/explain/{instance}/{repository:.+}", self.explain)

    async def where(self, request: web.Request) -> web.Response:
        """Answers an item for each tag that is asked for (separated by commas), or a page of all tags by name."""
        query = parameters(request, "tag", "limit", "cursor")
        instance, repository = self._instance(request), _repository(request)
        tags, limit = _tags("tag", query.get("tag")), limit_of(query)
        places = expected_places(self._state, instance, repository)
        has_more = False
        if not tags:
            found = await self._all_tags(places, query.get("cursor", ""), limit + 1)
            tags, has_more = found[:limit], len(found) > limit
        known = await self._known(instance, repository, places, tags)
        items = [tag_as_json(places, repository, tag, known) for tag in tags]
        return answer_list(items, str(tags[-1]) if has_more else None)

    async def explain(self, request: web.Request) -> web.Response:
        """Answers for each rule of the instance whether it matches a tag, and why not."""
        instance, repository = self._instance(request), _repository(request)
        try:
            tag = Tag(parameters(request, "tag").get("tag", ""))
        except ValueError as error:
            raise InvalidInput(clean(str(error))) from error
        return answer_list([asdict(one) for one in explain(self._state, instance, repository, tag)])

    def _instance(self, request: web.Request) -> Place:
        name = request.match_info["instance"]
        instance = self._state.place(name)
        if instance is None or instance.is_replica:
            hint = name_hint(Instance.noun, name, (it.key for it in self._state.things()))
            raise NoSuchResource(f"no instance is named {clean(name, 80)!r}; {hint}")
        return instance

    async def _all_tags(self, places: Collection[ExpectedPlace], cursor: str, limit: int) -> list[Tag]:
        after = _tags("cursor", cursor or None)
        holders = [one.key for one in places if one.is_exclusive]
        return [Tag(tag) for tag in await self._images.tags(holders, str(after[0]) if after else "", limit)]

    async def _known(
        self,
        instance: Place,
        repository: Repository,
        places: Collection[ExpectedPlace],
        tags: Collection[Tag],
    ) -> KnownTags:
        entries = await self._images.entries([one.key for one in places], [str(tag) for tag in tags])
        digests = {key: str(entry.digest) for key, entry in entries.items()}
        origins = {
            key.tag: digest for key, digest in digests.items() if key[:2] == (instance.name, repository)
        }
        others = {digest for key, digest in digests.items() if digest != origins.get(key.tag)}
        subjects = {(key.place, key.repository, digest) for key, digest in digests.items()}
        return KnownTags(
            now=self._clock.now(),
            entries=entries,
            referrers=await self._images.count_referrers(subjects),
            rebuilt_from=await self._images.rebuilt_from(str(repository), others),
        )


def _repository(request: web.Request) -> Repository:
    try:
        return Repository(request.match_info["repository"])
    except ValueError as error:
        raise InvalidInput(clean(str(error))) from error


def _tags(name: str, text: str | None) -> list[Tag]:
    try:
        tags = [Tag(part) for part in text.split(",")] if text is not None else []
    except ValueError as error:
        raise InvalidInput(f"{name}: {clean(str(error))}") from error
    if len(tags) > MAX_LIMIT:
        raise InvalidInput(f"{name}: at most {MAX_LIMIT} tags can be asked for at once")
    return tags
