"""Credentials and tokens of one registry. They go to its own origin and to the realms pinned for it, nowhere else.

A registry says how it wants to be asked by refusing the first request (401 and `WWW-Authenticate`); that is
remembered, so that later requests carry the right header at once. Tokens are kept by scope until shortly
before they end; a registry looks at a token when a request begins, so a long upload may outlive its token.
Credentials are asked for anew when they are refused, and before a token server is asked, so that a rotated
secret needs no restart.
"""

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import orjson
from yarl import URL

from mesh.clock import Clock
from mesh.credentials.credentials import CredentialProvider, Credentials
from mesh.errors import Denied, InvalidInput, Rejected
from mesh.registry import challenges
from mesh.registry.challenges import Challenge
from schemas.completions import Side
from schemas.names import Repository

Scopes = tuple[str, ...]
# Asks a token server: URL, Authorization or None, a form to post or None, side; its answer's body.
FetchToken = Callable[[URL, str | None, Mapping[str, str] | None, Side], Awaitable[bytes]]

_DEFAULT_LIFETIME = 60.0  # seconds, as the token specification has it
_LEEWAY = 15.0  # seconds a token must have left when a request begins
_MOST_TOKENS = 1000
_TOKEN = re.compile(r"[\x21-\x7e]+")
# Registries whose token server is on another host, by their own publication.
_KNOWN_REALMS = {"https://registry-1.docker.io": "https://auth.docker.io"}


def pull(repository: Repository) -> Scopes:
    return (f"repository:{repository}:pull",)


def push(repository: Repository) -> Scopes:
    return (f"repository:{repository}:pull,push",)


def delete(repository: Repository) -> Scopes:
    return (f"repository:{repository}:pull,delete",)


def catalog() -> Scopes:
    return ("registry:catalog:*",)


def parse_realms(texts: Iterable[str]) -> frozenset[URL]:
    """The operator's token servers, as origins (`https://auth.example.com`); `InvalidInput` for what is none."""
    try:
        return frozenset(URL(text).origin() for text in texts)
    except ValueError as error:
        raise InvalidInput(
            f"a token realm is not an http URL: {error}; use an origin such as https://auth.example.com"
        ) from error


def trusted_realms(home: URL, realms: frozenset[URL]) -> frozenset[URL]:
    """Where the token server of the registry at `home` may be, as origins."""
    known = _KNOWN_REALMS.get(str(home.origin()))
    return realms | {home.origin()} | ({URL(known)} if known else set())


@dataclass(frozen=True, slots=True)
class Token:
    value: str = field(repr=False)
    expires: float  # on the monotonic clock
    lifetime: float

    def is_fresh(self, now: float) -> bool:
        return now < self.expires - min(_LEEWAY, self.lifetime / 2)


class Authenticator:
    """What to put into `Authorization` for one registry; shared by all who talk to it."""

    def __init__(
        self,
        home: URL,
        credentials: CredentialProvider,
        realms: frozenset[URL],
        *,
        clock: Clock,
        fetch: FetchToken,
    ) -> None:
        self._given = credentials
        self._realms = trusted_realms(home, realms)
        self._clock = clock
        self._fetch = fetch
        self._challenge: Challenge | None = None
        self._tokens: dict[Scopes, Token] = {}
        self._locks: WeakValueDictionary[Scopes, asyncio.Lock] = WeakValueDictionary()

    async def authorization(self, scopes: Scopes, side: Side) -> str | None:
        """The header for a request, as far as is known; None before the registry has asked for anything."""
        cached = self._given.cached
        if cached is not None and cached.is_bearer:
            return f"Bearer {cached.password}"
        if self._challenge is None:
            return None
        if self._challenge.scheme == "basic":
            return _basic(cached or await self._ask(side))
        return await self._bearer(self._challenge, scopes, [], side)

    async def answer(
        self, headers: Iterable[str], scopes: Scopes, refused: str | None, side: Side
    ) -> str | None:
        """The header to try once more with after a 401, or None when we have nothing better than `refused`."""
        known = await self._ask(side)
        if known is not None and known.is_bearer:
            token_now = f"Bearer {known.password}"
            return token_now if token_now != refused else None
        challenge = challenges.choose(headers)
        if challenge is None:
            return None
        if challenge.scheme == "bearer":
            check_realm(
                challenge, self._realms, side
            )  # where our password goes: only where the operator expects it
        self._challenge = challenge  # only now: what is remembered is asked without another look
        if challenge.scheme == "basic":
            return await self._better_basic(known, refused, side)
        self._forget(scopes, refused)
        named = challenge.parameters.pop("scope", "").split()  # of this request, not of those to come
        return await self._bearer(challenge, scopes, named, side)

    async def _ask(self, side: Side, *, refused: Credentials | None = None) -> Credentials | None:
        before = self._given.cached
        found = await self._given.refresh(side, rejected=refused)
        if self._given.cached != before:
            self._tokens.clear()
        return found

    async def _better_basic(self, known: Credentials | None, refused: str | None, side: Side) -> str | None:
        if refused is not None and _basic(known) == refused:
            known = await self._ask(side, refused=known)
        better = _basic(known)
        return better if better != refused else None

    def _forget(self, scopes: Scopes, refused: str | None) -> None:
        token = self._tokens.get(scopes)
        if token is not None and f"Bearer {token.value}" == refused:
            del self._tokens[scopes]

    async def _bearer(self, challenge: Challenge, scopes: Scopes, named: list[str], side: Side) -> str:
        lock = self._locks.setdefault(scopes, asyncio.Lock())
        async with lock:  # many blobs of one repository ask at once; one asks the token server
            token = self._tokens.get(scopes)
            if token is None or not token.is_fresh(self._clock.monotonic()):
                token = await self._new_token(challenge, [*scopes, *named], side)
                self._remember(scopes, token)
        return f"Bearer {token.value}"

    async def _new_token(self, challenge: Challenge, scopes: Sequence[str], side: Side) -> Token:
        asked = self._clock.monotonic()
        known = await self._ask(side)
        try:
            body = await self._fetched(challenge, scopes, known, side)
        except Denied:
            newer = await self._ask(side, refused=known)
            if newer == known:
                raise
            body = await self._fetched(challenge, scopes, newer, side)
        value, lifetime = parse_token(body, side)
        return Token(value, asked + lifetime, lifetime)

    async def _fetched(
        self, challenge: Challenge, scopes: Sequence[str], known: Credentials | None, side: Side
    ) -> bytes:
        if known is not None and known.is_identity:
            form = identity_form(challenge, scopes, known.password)
            return await self._fetch(URL(challenge.parameters["realm"]), None, form, side)
        return await self._fetch(token_url(challenge, scopes), _basic(known), None, side)

    def _remember(self, scopes: Scopes, token: Token) -> None:
        self._tokens.pop(scopes, None)
        self._tokens[scopes] = token
        if len(self._tokens) > _MOST_TOKENS:
            del self._tokens[next(iter(self._tokens))]


def _basic(known: Credentials | None) -> str | None:
    if known is None or known.user is None:
        return None
    pair = f"{known.user}:{known.password}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def check_realm(challenge: Challenge, trusted: frozenset[URL], side: Side) -> URL:
    """The realm of a challenge; `Rejected` when it is none, has a user, or is of none of the `trusted` origins."""
    try:
        realm = URL(challenge.parameters["realm"])
        origin = realm.origin()
    except (KeyError, ValueError) as error:
        raise Rejected("the registry names a token realm that is no URL", side=side) from error
    if realm.user is not None or realm.password is not None:
        raise Rejected("the registry names a token realm with a user of its own", side=side)
    if origin not in trusted:
        raise Rejected(f"the registry names the token realm {origin}, which is not its own", side=side)
    return realm


def token_url(challenge: Challenge, scopes: Iterable[str]) -> URL:
    """The realm with service and scopes, each once."""
    query = [("scope", scope) for scope in dict.fromkeys(scopes)]
    if service := challenge.parameters.get("service"):
        query.insert(0, ("service", service))
    return URL(challenge.parameters["realm"]).extend_query(query)


def identity_form(challenge: Challenge, scopes: Iterable[str], token: str) -> Mapping[str, str]:
    """What is posted to the realm for a bearer token, by who has an identity token (OAuth 2: a refresh token)."""
    form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "regmesh"}
    if service := challenge.parameters.get("service"):
        form["service"] = service
    if wanted := " ".join(dict.fromkeys(scopes)):
        form["scope"] = wanted
    return form


def parse_token(body: bytes, side: Side) -> tuple[str, float]:
    """The token and its lifetime in seconds, of a token server's answer."""
    try:
        answer = orjson.loads(body)
        value = answer.get("token") or answer["access_token"]
        lifetime = float(answer.get("expires_in") or _DEFAULT_LIFETIME)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Denied("the token server answered without a token", side=side) from error
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise Denied("the token server answered with a token that is none", side=side)
    return value, lifetime
