"""`/api/v1/images`: which place holds which digest of an image."""

from collections.abc import Collection

from aiohttp import web

from mesh.clock import Clock
from mesh.control.http.guard import answer, known, refuse
from mesh.control.images import where
from mesh.control.images.merge import Key
from mesh.control.images.store import Images
from mesh.control.images.where import Sight, Spot
from mesh.control.sync_log import log_query
from mesh.errors import InvalidInput, clean
from mesh.rules.state import MeshState
from mesh.rules.validation.messages import name_hint
from schemas.names import Repository, Tag
from schemas.topology import Place


class WhereApi:
    def __init__(self, images: Images, *, state: MeshState, clock: Clock) -> None:
        self._images, self._state, self._clock = images, state, clock

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/images/{instance}/{repository:.+}", self.where)

    async def where(self, request: web.Request) -> web.Response:
        """One item for each tag asked for (several with commas), or of all tags by name."""
        query = known(request, "tag", "limit", "cursor")
        instance = self._state.place(request.match_info["instance"])
        if instance is None or instance.is_replica:
            name = request.match_info["instance"]
            hint = name_hint("instance", name, (it.key for it in self._state.things()))
            return refuse(404, "not_found", f"no instance is named {clean(name, 80)!r}; {hint}")
        repository, asked = _repository(request), _tags("tag", query.get("tag"))
        limit = log_query.limit("limit", query.get("limit", str(log_query.DEFAULT_LIMIT)))
        spots = where.spots(self._state, instance, repository)
        more = False
        if asked:
            limit = len(asked)
        else:
            asked = await self._known(spots, query.get("cursor", ""), limit + 1)
            more = len(asked) > limit
        sight = await self._sight(instance, repository, spots, asked[:limit])
        items = [where.answer(spots, repository, tag, sight) for tag in asked[:limit]]
        return answer({"items": items, "next": str(asked[limit - 1]) if more else None})

    async def _known(self, spots: Collection[Spot], cursor: str, limit: int) -> list[Tag]:
        after = _tags("cursor", cursor or None)
        holders = [spot.holder for spot in spots if spot.has_no_others]
        return [Tag(tag) for tag in await self._images.tags(holders, str(after[0]) if after else "", limit)]

    async def _sight(
        self, instance: Place, repository: Repository, spots: Collection[Spot], tags: Collection[Tag]
    ) -> Sight:
        held = await self._images.held([spot.holder for spot in spots], [str(tag) for tag in tags])
        digests = {key: str(one.digest) for key, one in held.items()}
        origins = {
            key.tag: digest for key, digest in digests.items() if key[:2] == (instance.name, repository)
        }
        others = {digest for key, digest in digests.items() if digest != origins.get(key.tag)}
        return Sight(
            now=self._clock.now(),
            held=held,
            referrers=await self._images.referrers({_about(key, digest) for key, digest in digests.items()}),
            made_from=await self._images.made_from(str(repository), others),
        )


def _about(key: Key, digest: str) -> tuple[str, str, str]:
    return key.place, key.repository, digest


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
    if len(tags) > log_query.MOST:
        raise InvalidInput(f"{name}: {log_query.MOST} at once at the most")
    return tags
