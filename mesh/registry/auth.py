"""Credentials and tokens of one registry. They are sent to its origin and to the realms pinned for it, nowhere else.

A registry states its scheme by refusing the first request (401 and `WWW-Authenticate`). The challenge is cached so that
later requests carry the right header at once. Tokens are cached by scope until shortly before they expire; a registry
checks a token when a request starts, so a long upload may outlive its token. Credentials are looked up again when they
are refused and before a token server is asked, so that a rotated secret needs no restart.

Source: the token authentication specification of the distribution project.
"""

import base64
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson
from cachetools import LRUCache
from yarl import URL

from mesh.clock import Clock
from mesh.concurrency import KeyedLock
from mesh.credentials.credentials import CredentialProvider, Credentials
from mesh.errors import Denied, InvalidInput, Rejected
from mesh.registry import challenges
from mesh.registry.challenges import Challenge
from schemas.completions import Side
from schemas.names import Repository

Scopes = tuple[str, ...]
# Sends a request to a token server: URL, Authorization or None, a form to post or None, side. Returns the body.
FetchToken = Callable[[URL, str | None, Mapping[str, str] | None, Side], Awaitable[bytes]]

_DEFAULT_LIFETIME = 60.0  # seconds, from the token specification
_LEEWAY = 15.0  # seconds a token must have left when a request starts
_MOST_TOKENS = 1000
_TOKEN = re.compile(r"[\x21-\x7e]+")
# Registries whose documented token server is on another host.
_KNOWN_REALMS = {"https://registry-1.docker.io": "https://auth.docker.io"}


def pull(repository: Repository) -> Scopes:
    """Returns the scopes to read from a repository."""
    return (f"repository:{repository}:pull",)


def push(repository: Repository) -> Scopes:
    """Returns the scopes to write to a repository."""
    return (f"repository:{repository}:pull,push",)


def delete(repository: Repository) -> Scopes:
    """Returns the scopes to delete from a repository."""
    return (f"repository:{repository}:pull,delete",)


def catalog() -> Scopes:
    """Returns the scopes to list all repositories."""
    return ("registry:catalog:*",)


def parse_realms(texts: Iterable[str]) -> frozenset[URL]:
    """Parses the operator's token servers, as origins such as `https://auth.example.com`.

    Raises:
        InvalidInput: One is not an http URL.
    """
    try:
        return frozenset(URL(text).origin() for text in texts)
    except ValueError as error:
        raise InvalidInput(
            f"a token realm is not an http URL: {error}; use an origin such as https://auth.example.com"
        ) from error


def trusted_realms(home: URL, realms: frozenset[URL]) -> frozenset[URL]:
    """Returns the origins that may serve tokens for the registry at `home`."""
    known = _KNOWN_REALMS.get(str(home.origin()))
    return realms | {home.origin()} | ({URL(known)} if known else set())


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token. Times are in seconds of the monotonic clock."""

    value: str = field(repr=False)
    expires: float
    lifetime: float

    def is_fresh(self, now: float) -> bool:
        """Returns whether a request may start with this token."""
        return now < self.expires - min(_LEEWAY, self.lifetime / 2)


class Authenticator:
    """Makes the `Authorization` headers of one registry, shared by all its users."""

    def __init__(
        self,
        home: URL,
        credentials: CredentialProvider,
        realms: frozenset[URL],
        *,
        clock: Clock,
        fetch: FetchToken,
    ) -> None:
        self._credentials = credentials
        self._realms = trusted_realms(home, realms)
        self._clock = clock
        self._fetch = fetch
        self._challenge: Challenge | None = None
        self._tokens: LRUCache[Scopes, Token] = LRUCache(_MOST_TOKENS)
        self._locks = KeyedLock[Scopes]()

    async def authorization(self, scopes: Scopes, side: Side) -> str | None:
        """Returns the header for a request, or None until the registry has sent a challenge."""
        cached = self._credentials.cached
        if cached is not None and cached.is_bearer:
            return f"Bearer {cached.password}"
        if self._challenge is None:
            return None
        if self._challenge.scheme == "basic":
            return _basic(cached or await self._look_up(side))
        return await self._bearer(self._challenge, scopes, [], side)

    async def answer_challenge(
        self, headers: Iterable[str], scopes: Scopes, refused: str | None, side: Side
    ) -> str | None:
        """Returns the header to repeat a request with after a 401, or None when only the `refused` one is known.

        Args:
            headers: The answer's `WWW-Authenticate` headers.
            refused: The `Authorization` header that was refused.

        Raises:
            Rejected: The challenge names a token realm that is not trusted.
            Denied: The token server refuses the credentials.
        """
        known = await self._look_up(side)
        if known is not None and known.is_bearer:
            current = f"Bearer {known.password}"
            return current if current != refused else None
        challenge = challenges.choose(headers)
        if challenge is None:
            return None
        if challenge.scheme == "bearer":
            check_realm(challenge, self._realms, side)  # the password is sent there
        self._challenge = challenge  # only after the check: a cached challenge is not checked again
        if challenge.scheme == "basic":
            return await self._other_basic(known, refused, side)
        self._drop_token(scopes, refused)
        extra_scopes = challenge.parameters.pop("scope", "").split()  # of this request, not of later ones
        return await self._bearer(challenge, scopes, extra_scopes, side)

    async def _look_up(self, side: Side, *, refused: Credentials | None = None) -> Credentials | None:
        before = self._credentials.cached
        found = await self._credentials.refresh(side, rejected=refused)
        if self._credentials.cached != before:
            self._tokens.clear()
        return found

    async def _other_basic(self, known: Credentials | None, refused: str | None, side: Side) -> str | None:
        if refused is not None and _basic(known) == refused:
            known = await self._look_up(side, refused=known)
        header = _basic(known)
        return header if header != refused else None

    def _drop_token(self, scopes: Scopes, refused: str | None) -> None:
        token = self._tokens.get(scopes)
        if token is not None and f"Bearer {token.value}" == refused:
            del self._tokens[scopes]

    async def _bearer(self, challenge: Challenge, scopes: Scopes, extra_scopes: list[str], side: Side) -> str:
        async with self._locks.hold(scopes):  # concurrent requests of one scope fetch one token
            token = self._tokens.get(scopes)
            if token is None or not token.is_fresh(self._clock.monotonic()):
                token = await self._new_token(challenge, [*scopes, *extra_scopes], side)
                self._tokens[scopes] = token
        return f"Bearer {token.value}"

    async def _new_token(self, challenge: Challenge, scopes: Sequence[str], side: Side) -> Token:
        started = self._clock.monotonic()
        known = await self._look_up(side)
        try:
            body = await self._fetch_token(challenge, scopes, known, side)
        except Denied:
            newer = await self._look_up(side, refused=known)
            if newer == known:
                raise
            body = await self._fetch_token(challenge, scopes, newer, side)
        value, lifetime = parse_token(body, side)
        return Token(value, started + lifetime, lifetime)

    async def _fetch_token(
        self, challenge: Challenge, scopes: Sequence[str], known: Credentials | None, side: Side
    ) -> bytes:
        if known is not None and known.is_identity:
            form = identity_form(challenge, scopes, known.password)
            return await self._fetch(URL(challenge.parameters["realm"]), None, form, side)
        return await self._fetch(token_url(challenge, scopes), _basic(known), None, side)


def _basic(known: Credentials | None) -> str | None:
    if known is None or known.user is None:
        return None
    pair = f"{known.user}:{known.password}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def check_realm(challenge: Challenge, trusted: frozenset[URL], side: Side) -> URL:
    """Returns the realm of a challenge.

    Raises:
        Rejected: It is not a URL, contains a user, or is not on one of the `trusted` origins.
    """
    try:
        realm = URL(challenge.parameters["realm"])
        origin = realm.origin()
    except (KeyError, ValueError) as error:
        raise Rejected("the registry names a token realm that is not a URL", side=side) from error
    if realm.user is not None or realm.password is not None:
        raise Rejected("the registry names a token realm with a user in it", side=side)
    if origin not in trusted:
        raise Rejected(f"the registry names the token realm {origin}, which is not its own", side=side)
    return realm


def token_url(challenge: Challenge, scopes: Iterable[str]) -> URL:
    """Returns the realm with the service and the scopes, without duplicates, in its query."""
    query = [("scope", scope) for scope in dict.fromkeys(scopes)]
    if service := challenge.parameters.get("service"):
        query.insert(0, ("service", service))
    return URL(challenge.parameters["realm"]).extend_query(query)


def identity_form(challenge: Challenge, scopes: Iterable[str], token: str) -> Mapping[str, str]:
    """Returns the form that exchanges an identity token (an OAuth 2 refresh token) for a bearer token."""
    form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "regmesh"}
    if service := challenge.parameters.get("service"):
        form["service"] = service
    if wanted := " ".join(dict.fromkeys(scopes)):
        form["scope"] = wanted
    return form


def parse_token(body: bytes, side: Side) -> tuple[str, float]:
    """Parses a token server's answer.

    Returns:
        The token, and its lifetime in seconds.

    Raises:
        Denied: The answer contains no valid token.
    """
    try:
        answer = orjson.loads(body)
        value = answer.get("token") or answer["access_token"]
        lifetime = float(answer.get("expires_in") or _DEFAULT_LIFETIME)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Denied("the token server answered without a token", side=side) from error
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise Denied("the token server answered with an invalid token", side=side)
    return value, lifetime
