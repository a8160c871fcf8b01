"""Credentials and tokens of one registry. They go to its own origin and to the realms pinned for it, nowhere else.

A registry says how it wants to be asked by refusing the first request (401 and `WWW-Authenticate`); that is
remembered, so that later requests carry the right header at once. Tokens are kept by scope until shortly
before they end; a registry looks at a token when a request begins, so a long upload may outlive its token.
Credentials are looked up again when they are refused, and before a token server is asked, so that a rotated
secret needs no restart.
"""

import asyncio
import base64
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import orjson
from yarl import URL

from mesh.clock import Clock
from mesh.errors import Denied, InvalidInput, Rejected
from mesh.registry import challenges
from mesh.registry.challenges import Challenge
from mesh.secrets import Credentials
from schemas.completions import Side
from schemas.names import Repository

Scopes = tuple[str, ...]
# Asks a token server: URL, Authorization or None, side; its answer's body.
FetchToken = Callable[[URL, str | None, Side], Awaitable[bytes]]

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
        credentials: Credentials | None,
        realms: frozenset[URL],
        *,
        clock: Clock,
        fetch: FetchToken,
        renew: Callable[[], Credentials | None] | None = None,
    ) -> None:
        self._credentials = credentials
        self._look_up = renew
        self._realms = trusted_realms(home, realms)
        self._clock = clock
        self._fetch = fetch
        self._challenge: Challenge | None = None
        self._tokens: dict[Scopes, Token] = {}
        self._locks: WeakValueDictionary[Scopes, asyncio.Lock] = WeakValueDictionary()

    async def authorization(self, scopes: Scopes, side: Side) -> str | None:
        """The header for a request, as far as is known; None before the registry has asked for anything."""
        if self._credentials is not None and self._credentials.user is None:
            return f"Bearer {self._credentials.password}"
        if self._challenge is None:
            return None
        if self._challenge.scheme == "basic":
            return self._basic()
        return await self._bearer(self._challenge, scopes, [], side)

    async def answer(
        self, headers: Iterable[str], scopes: Scopes, refused: str | None, side: Side
    ) -> str | None:
        """The header to try once more with after a 401, or None when we have nothing better than `refused`."""
        self._renew()
        if self._credentials is not None and self._credentials.user is None:
            token_now = f"Bearer {self._credentials.password}"
            return token_now if token_now != refused else None
        challenge = challenges.choose(headers)
        if challenge is None:
            return None
        if challenge.scheme == "bearer":
            self._check_realm(challenge, side)
        self._challenge = challenge  # only now: what is remembered is asked without another look
        if challenge.scheme == "basic":
            better = self._basic()
            return better if better != refused else None
        self._forget(scopes, refused)
        named = challenge.parameters.pop("scope", "").split()  # of this request, not of those to come
        return await self._bearer(challenge, scopes, named, side)

    def _basic(self) -> str | None:
        if self._credentials is None:
            return None
        pair = f"{self._credentials.user}:{self._credentials.password}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"

    def _renew(self) -> None:
        """As they are now. Those that we have stay while there are none that can be read: a file is being replaced."""
        if self._look_up is None:
            return
        with contextlib.suppress(InvalidInput):
            found = self._look_up()
            if found != self._credentials:
                self._credentials = found
                self._tokens.clear()

    def _check_realm(self, challenge: Challenge, side: Side) -> None:
        """The realm decides where our password goes: only where the operator would expect it."""
        check_realm(challenge, self._realms, side)

    def _forget(self, scopes: Scopes, refused: str | None) -> None:
        token = self._tokens.get(scopes)
        if token is not None and f"Bearer {token.value}" == refused:
            del self._tokens[scopes]

    async def _bearer(self, challenge: Challenge, scopes: Scopes, named: list[str], side: Side) -> str:
        lock = self._locks.setdefault(scopes, asyncio.Lock())
        async with lock:  # many blobs of one repository ask at once; one asks the token server
            token = self._tokens.get(scopes)
            if token is None or not token.is_fresh(self._clock.monotonic()):
                token = await self._new_token(token_url(challenge, [*scopes, *named]), side)
                self._remember(scopes, token)
        return f"Bearer {token.value}"

    async def _new_token(self, url: URL, side: Side) -> Token:
        self._renew()
        asked = self._clock.monotonic()
        body = await self._fetch(url, self._basic(), side)
        value, lifetime = parse_token(body, side)
        return Token(value, asked + lifetime, lifetime)

    def _remember(self, scopes: Scopes, token: Token) -> None:
        self._tokens.pop(scopes, None)
        self._tokens[scopes] = token
        if len(self._tokens) > _MOST_TOKENS:
            del self._tokens[next(iter(self._tokens))]


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
