"""Programs that keep credentials, as Docker's `config.json` names them: `docker-credential-<name> get`.

The server goes in, a JSON object comes out. What a helper says is never shown, not even when it fails: it may be the
secret. It runs beside us, for a bounded time, and does not see the mesh's own secrets.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from mesh.clock import Clock
from mesh.credentials.credentials import Credentials
from mesh.errors import HelperFailed
from schemas.completions import Side

_TIME_LIMIT = 15.0  # seconds; less than a look at a place takes at most, so that the place says why
_KEPT = 300.0  # seconds: of the clouds' tokens, the shortest of which hold for an hour
_NOTHING_KEPT = 60.0  # somebody may log in meanwhile
_REFUSED_KEPT = 10.0  # what failed, or was refused by the registry, is not asked for by every request
_MOST_BYTES = 64 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_NOT_THERE = b"credentials not found in native keychain"  # the protocol's way to say that there are none
_IDENTITY = "<token>"


class _Failure(Exception):
    """The text is our own."""


@dataclass(frozen=True, slots=True)
class _Answer:
    at: float  # on the monotonic clock
    credentials: Credentials | None = None
    failure: str | None = None

    def holds(self, now: float, refused: Credentials | None) -> bool:
        if self.failure is not None or (refused is not None and refused == self.credentials):
            return now - self.at < _REFUSED_KEPT
        return now - self.at < (_KEPT if self.credentials is not None else _NOTHING_KEPT)


class CredentialHelper:
    """One helper, asked for one server. Its answers are kept for minutes: `AskedFor`."""

    at_hand: None = None

    def __init__(self, name: str, server: str, environment: Mapping[str, str], clock: Clock) -> None:
        self._name, self._server, self._clock = name, server, clock
        self._program = f"docker-credential-{name}"
        self._environment = {
            key: value for key, value in environment.items() if not key.startswith("REGMESH_SECRET_")
        }
        self._lock = asyncio.Lock()
        self._answer: _Answer | None = None

    async def ask(self, side: Side, *, refused: Credentials | None = None) -> Credentials | None:
        async with self._lock:  # many requests need it at once; one asks
            if self._answer is None or not self._answer.holds(self._clock.monotonic(), refused):
                self._answer = await self._asked()
            answer = self._answer
        if answer.failure is not None:
            raise HelperFailed(answer.failure, side=side)
        return answer.credentials

    async def _asked(self) -> _Answer:
        try:
            credentials = await self._get()
        except _Failure as failure:
            return _Answer(self._clock.monotonic(), failure=str(failure))
        return _Answer(self._clock.monotonic(), credentials)

    async def _get(self) -> Credentials | None:
        if not _NAME.fullmatch(self._name):
            raise _Failure(
                f"config.json names a credential helper {self._name[:40]!r}, which is no name of one"
            )
        path = shutil.which(self._program, path=self._environment.get("PATH", os.defpath))
        if path is None:
            raise _Failure(f"{self._program}, which config.json names for {self._server}, is not on PATH")
        try:
            async with asyncio.timeout(_TIME_LIMIT):
                code, said = await self._run(path)
        except TimeoutError:
            raise self._failed(f"said nothing within {_TIME_LIMIT:.0f} s") from None
        except OSError as error:
            raise self._failed(f"cannot be run ({error.strerror})") from None
        if code != 0:
            if said.strip() == _NOT_THERE:
                return None
            raise self._failed(f"ended with exit code {code}")
        return self._parsed(said)

    async def _run(self, path: str) -> tuple[int, bytes]:
        """Its exit code and what it said."""
        process = await asyncio.create_subprocess_exec(
            path, "get", stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=self._environment, start_new_session=True
        )  # fmt: skip
        try:
            said = await self._talk(process)
            return await process.wait(), said
        except BaseException:
            await _end(process)
            raise

    async def _talk(self, process: Process) -> bytes:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(ConnectionError):  # one that knows without asking need not read
            process.stdin.write(self._server.encode())
            await process.stdin.drain()
        process.stdin.close()
        said = bytearray()
        while part := await process.stdout.read(_MOST_BYTES):
            said += part
            if len(said) > _MOST_BYTES:
                raise self._failed(f"said more than {_MOST_BYTES} bytes")
        return bytes(said)

    def _parsed(self, said: bytes) -> Credentials | None:
        try:
            answer = orjson.loads(said)
            user, secret = answer["Username"], answer["Secret"]
        except (ValueError, KeyError, TypeError):
            user = secret = None
        if not isinstance(user, str) or not isinstance(secret, str):
            raise self._failed("said what is no credentials")
        if user == _IDENTITY:
            return Credentials(None, secret, is_identity=True)
        return Credentials(user, secret) if user or secret else None

    def _failed(self, what: str) -> _Failure:
        return _Failure(
            f"{self._program} {what}: try `echo {self._server} | {self._program} get` where regmesh runs"
        )


async def _end(process: Process) -> None:
    """With all that it started: a script's own children would hold its pipe open."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is None:
        await process.wait()
