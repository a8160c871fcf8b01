"""Finds the place that serves a pull: places are asked one after the other until one has it, or one is final."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aiohttp import ClientResponse
from cachetools import LRUCache

from mesh.errors import ContentMismatch, ContentRefused, RegistryError, Unreachable
from mesh.gateway import headers
from mesh.gateway.nearest import Candidate, RankedInstance
from mesh.gateway.outcome import Inquiry, Outcome, may_ask, outcome_of
from mesh.gateway.request import Endpoint, ErrorResponse, Pull, not_found
from mesh.gateway.upstreams import Upstreams
from mesh.registry import failures
from mesh.registry.port import MAX_MANIFEST, digest_of
from mesh.registry.sessions import read_whole
from mesh.registry.upstream import UpstreamRequest, drain
from schemas.completions import Side
from schemas.names import Account, Digest
from schemas.topology import Place

_RETRY_AFTER = "5"  # seconds
_SIGNED = "manifest.v1+prettyjws"


class NegativeCache:
    """What places did not have when they last answered; it holds while they do not answer.

    Without it one registry that is down would block, by its place in the list, the tags of all instances after it.
    Only what is asked for by name is remembered; the oldest answers are forgotten first.
    """

    def __init__(self, size: int) -> None:
        self._absent: LRUCache[tuple[Place, str], None] = LRUCache(size)

    def record(self, place: Place, pull: Pull, outcome: Outcome) -> None:
        """Records the outcome of a request to a place."""
        if outcome is Outcome.ABSENT and pull.is_by_name:
            self._absent[place, pull.path] = None
        elif outcome is not Outcome.UNAVAILABLE:
            self._absent.pop((place, pull.path), None)

    def was_absent(self, place: Place, pull: Pull) -> bool:
        """Returns whether the place did not have it when it last answered."""
        return (place, pull.path) in self._absent


@dataclass(frozen=True, slots=True)
class Served:
    """A place's response, its body still to be read unless it is in `body`. The caller closes it.

    Args:
        absent: Nearer places that do not have it.
    """

    place: Place
    response: ClientResponse
    body: bytes | None = None
    absent: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class Challenged:
    """A place refused, with 401 or 403; the headers say how it wants to be asked. The response is closed.

    Args:
        takes_credentials: Whether clients' credentials are for this place, so that they may be asked for them.
    """

    place: Place
    response: ClientResponse
    takes_credentials: bool


@dataclass(slots=True)
class PlaceSearch:
    """The search for one pull. `find` may be called once."""

    pull: Pull
    headers: Mapping[str, str]
    upstreams: Upstreams
    negative_cache: NegativeCache
    manifest_timeout: float
    refusal: Challenged | None = None
    unavailable: list[Place] = field(default_factory=list)
    absent: list[Place] = field(default_factory=list)
    retry_after: str = _RETRY_AFTER
    throttled: bool = False

    async def find(self, instances: Sequence[RankedInstance]) -> Served | Challenged:
        """Returns the response of the first place that serves, or else the first refusal.

        Raises:
            ErrorResponse: No place has it (404), or places that may have it cannot answer now (429, 503).
        """
        previous: list[tuple[Account, Inquiry]] = []
        for one in instances:
            if not may_ask(one.instance.account, previous):
                break
            authorized = one.takes_credentials and headers.AUTHORIZATION in self.headers
            inquiry = Inquiry(self.pull.is_by_name, authorized)
            if (found := await self._ask_instance(one, inquiry)) is not None:
                return found
            previous.append((one.instance.account, inquiry))
        return self._not_served()

    async def _ask_instance(self, instance: RankedInstance, inquiry: Inquiry) -> Served | None:
        refusals: list[Challenged] = []
        for candidate in instance.candidates:
            found = await self.ask(candidate, takes_credentials=instance.takes_credentials)
            outcome = found if isinstance(found, Outcome) else outcome_of(found.response.status)
            self.negative_cache.record(candidate.place, self.pull, outcome)
            if isinstance(found, Served):
                return found
            refusals += [found] if isinstance(found, Challenged) else []
            inquiry.record(
                outcome,
                is_authoritative=candidate.is_authoritative,
                was_absent=self.negative_cache.was_absent(candidate.place, self.pull),
            )
            if not inquiry.asks_next_place:
                break
        if inquiry.refused and self.refusal is None:
            self.refusal = refusals[0]
        return None

    async def ask(self, candidate: Candidate, *, takes_credentials: bool) -> Served | Challenged | Outcome:
        """Forwards the request to one place and returns its response, or why it did not serve.

        Args:
            candidate: The place.
            takes_credentials: Whether the client's credentials are for it; else it is asked without them.
        """
        place = candidate.place
        sent = self.headers if takes_credentials else headers.anonymous(self.headers)
        try:
            response = await self.upstreams.client(place).send(
                UpstreamRequest(self.pull.method, self.pull.path, self.pull.query, sent)
            )
            outcome = outcome_of(response.status)
            if outcome is Outcome.SERVED:
                return Served(place, response, await self._manifest(place, response), tuple(self.absent))
            await drain(response)
        except RegistryError as error:
            if isinstance(error, Unreachable):
                self.upstreams.mark_down(place, str(error))
            self.unavailable.append(place)
            return Outcome.UNAVAILABLE
        if outcome in (Outcome.UNAUTHORIZED, Outcome.DENIED):
            return Challenged(place, response, takes_credentials)
        self._record(place, response, outcome)
        return outcome

    def _record(self, place: Place, response: ClientResponse, outcome: Outcome) -> None:
        if outcome is Outcome.ABSENT:
            self.absent.append(place)
        else:
            self.unavailable.append(place)
            self.throttled = self.throttled or response.status == 429
            self.retry_after = response.headers.get("Retry-After", self.retry_after)
            if response.status >= 500:
                self.upstreams.mark_down(place, f"{response.status} to a client's request")

    async def _manifest(self, place: Place, response: ClientResponse) -> bytes | None:
        """Reads a manifest whole and checks it, so that the next place can serve when this one breaks off or is wrong.

        The time-out bounds the whole body: a place that trickles bytes never runs into a read time-out.
        """
        if self.pull.endpoint is not Endpoint.MANIFEST or self.pull.method != "GET" or response.status != 200:
            return None
        with failures.translated(place.name, Side.SOURCE):
            async with response, asyncio.timeout(self.manifest_timeout):
                body = await read_whole(response, MAX_MANIFEST)
        if body is None:
            raise ContentRefused(f"{place.name}: a manifest of over {MAX_MANIFEST} bytes", side=Side.SOURCE)
        for digest in (self.pull.reference, _content_digest(response.headers)):
            if isinstance(digest, Digest) and digest_of(body, digest.algorithm) != digest:
                raise ContentMismatch(f"{place.name}: other bytes than {digest}", side=Side.SOURCE)
        return body

    def _not_served(self) -> Challenged:
        if self.refusal is not None:
            return self.refusal
        later = {"Retry-After": self.retry_after}
        if self.throttled:
            raise ErrorResponse(
                429, "TOOMANYREQUESTS", "the places that may have it limit their requests", later
            )
        if self.unavailable:
            raise ErrorResponse(503, "UNAVAILABLE", "a place that may have it does not answer now", later)
        raise not_found(self.pull)


def claimed_digest(headers: Mapping[str, str]) -> Digest | None:
    """Returns the digest that a place states for its response; None when there is none, or one we cannot read."""
    try:
        return Digest(headers.get("Docker-Content-Digest", ""))
    except ValueError:
        return None


def _content_digest(headers: Mapping[str, str]) -> Digest | None:
    """Returns the digest of the bytes sent, which it is not for signed manifests of Docker's schema 1."""
    return None if _SIGNED in headers.get("Content-Type", "") else claimed_digest(headers)
