"""Who serves a request: the places are asked one after the other until one has it, or somebody has the say."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aiohttp import ClientResponse

from mesh.errors import ContentMismatch, ContentRefused, RegistryError, Unreachable
from mesh.gateway.nearest import Candidate, Holders
from mesh.gateway.negative_cache import NegativeCache
from mesh.gateway.places import Places
from mesh.gateway.request import Asked, Refused, What, unknown
from mesh.gateway.verdict import Inquiry, Meaning, may_be_asked, meaning
from mesh.registry import failures
from mesh.registry.port import MAX_MANIFEST, digest_of
from mesh.registry.sessions import read_whole
from mesh.registry.upstream import UpstreamRequest, drain
from schemas.completions import Side
from schemas.names import Account, Digest
from schemas.topology import Place

_AGAIN_SECONDS = "5"
_WHOLE_SECONDS = 30.0  # for a manifest; a place that sends it drop by drop is never silent
_SIGNED = "manifest.v1+prettyjws"


@dataclass(frozen=True, slots=True)
class Found:
    """A place's answer, its body still to be read unless it is in `body`. Whoever gets it closes it."""

    place: Place
    response: ClientResponse
    body: bytes | None = None
    absent: tuple[Place, ...] = ()  # nearer ones that have it not


@dataclass(frozen=True, slots=True)
class Challenged:
    """A place refuses, and says how it wants to be asked. The response is closed already."""

    place: Place
    response: ClientResponse


@dataclass(slots=True)
class Search:
    """One request on its way through the places. `find` once."""

    asked: Asked
    headers: Mapping[str, str]
    places: Places
    negative_cache: NegativeCache
    refusal: Challenged | None = None
    troubled: list[Place] = field(default_factory=list)
    absent: list[Place] = field(default_factory=list)
    retry_after: str = _AGAIN_SECONDS
    throttled: bool = False

    async def find(self, holders: Sequence[Holders]) -> Found | Challenged:
        """`Refused` when nobody has it, or nobody can tell."""
        heard: list[tuple[Account, Inquiry]] = []
        for one in holders:
            if not may_be_asked(one.instance.account, heard):
                break
            inquiry = Inquiry(self.asked.is_by_name, "Authorization" in self.headers)
            if (found := await self._ask_all(one, inquiry)) is not None:
                return found
            heard.append((one.instance.account, inquiry))
        return self._nobody()

    async def _ask_all(self, holders: Holders, inquiry: Inquiry) -> Found | None:
        refusals: list[Challenged] = []
        for candidate in holders.candidates:
            found = await self.ask(candidate)
            said = found if isinstance(found, Meaning) else meaning(found.response.status)
            self.negative_cache.take(candidate.place, self.asked, said)
            if isinstance(found, Found):
                return found
            refusals += [found] if isinstance(found, Challenged) else []
            inquiry.take(
                said,
                has_the_say=candidate.has_the_say,
                was_absent=self.negative_cache.was_absent(candidate.place, self.asked),
            )
            if not inquiry.goes_on:
                break
        if inquiry.refused and self.refusal is None:
            self.refusal = refusals[0]
        return None

    async def ask(self, candidate: Candidate) -> Found | Challenged | Meaning:
        """One place; what it says when it does not serve."""
        place = candidate.place
        try:
            response = await self.places.way(place).send(
                UpstreamRequest(self.asked.method, self.asked.path, self.asked.query, self.headers)
            )
            found = meaning(response.status)
            if found is Meaning.SERVED:
                return Found(place, response, await self._body(place, response), tuple(self.absent))
            await drain(response)
        except RegistryError as error:
            if isinstance(error, Unreachable):
                self.places.failed(place, str(error))
            self.troubled.append(place)
            return Meaning.TROUBLE
        return self._noted(place, response, found)

    def _noted(self, place: Place, response: ClientResponse, found: Meaning) -> Challenged | Meaning:
        if found is Meaning.ABSENT:
            self.absent.append(place)
        elif found is Meaning.TROUBLE:
            self.troubled.append(place)
            self.throttled = self.throttled or response.status == 429
            self.retry_after = response.headers.get("Retry-After", self.retry_after)
            if response.status >= 500:
                self.places.failed(place, f"{response.status} to a client's request")
        else:
            return Challenged(place, response)
        return found

    async def _body(self, place: Place, response: ClientResponse) -> bytes | None:
        """Of a manifest, whole and looked at, so that another place can serve it when this one breaks or lies."""
        if self.asked.what is not What.MANIFEST or self.asked.method != "GET" or response.status != 200:
            return None
        with failures.translated(place.name, Side.SOURCE):
            async with response, asyncio.timeout(_WHOLE_SECONDS):
                body = await read_whole(response, MAX_MANIFEST)
        if body is None:
            raise ContentRefused(f"{place.name}: a manifest of over {MAX_MANIFEST} bytes", side=Side.SOURCE)
        for named in (self.asked.reference, _content_digest(response.headers)):
            if isinstance(named, Digest) and digest_of(body, named.algorithm) != named:
                raise ContentMismatch(f"{place.name}: other bytes than {named}", side=Side.SOURCE)
        return body

    def _nobody(self) -> Challenged:
        if self.refusal is not None:
            return self.refusal
        if self.throttled:
            raise Refused(429, "TOOMANYREQUESTS", "the places that may have it ask for patience", self._later)
        if self.troubled:
            raise Refused(503, "UNAVAILABLE", "a place that may have it does not answer now", self._later)
        raise unknown(self.asked)

    @property
    def _later(self) -> dict[str, str]:
        return {"Retry-After": self.retry_after}


def claimed_digest(headers: Mapping[str, str]) -> Digest | None:
    """What a place calls its answer; None when it does not say so in a way that we read."""
    try:
        return Digest(headers.get("Docker-Content-Digest", ""))
    except ValueError:
        return None


def _content_digest(headers: Mapping[str, str]) -> Digest | None:
    """As `claimed_digest`, where that is of the bytes sent: in a signed manifest of Docker's first schema it is not."""
    return None if _SIGNED in headers.get("Content-Type", "") else claimed_digest(headers)
