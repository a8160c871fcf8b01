"""Credential helpers, as Docker's `config.json` names them: programs called `docker-credential-<name> get`.

A helper reads the server's name and prints a JSON object. Its output never appears in an error, not even when the
helper fails, because it may hold the secret. A helper has a time-out and does not see the mesh's own secrets.
Protocol: https://github.com/docker/docker-credential-helpers
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

# Seconds. The time-out is shorter than that of a health check of a place, so that the place's state names the reason.
_TIMEOUT = 15.0
_KILL_TIMEOUT = 2.0
_TTL = 300.0  # clouds issue tokens for an hour or more
_NEGATIVE_TTL = 60.0  # somebody may log in meanwhile
_FAILURE_TTL = 10.0  # also for rejected credentials: not every request runs the helper again
_MAX_OUTPUT = 64 * 1024  # bytes
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_NOT_FOUND = b"credentials not found in native keychain"  # the protocol's answer when there are none
_IDENTITY_USER = "<token>"  # the protocol's user name for an identity token


class _Failure(Exception):
    """The message holds nothing of the helper's output."""


@dataclass(frozen=True, slots=True)
class _Answer:
    at: float  # on the monotonic clock
    credentials: Credentials | None = None
    failure: str | None = None

    def is_fresh(self, now: float, rejected: Credentials | None) -> bool:
        if self.failure is not None or (rejected is not None and rejected == self.credentials):
            return now - self.at < _FAILURE_TTL
        return now - self.at < (_TTL if self.credentials is not None else _NEGATIVE_TTL)


class CredentialHelper:
    """A `CredentialProvider` that runs one helper for one server and caches its answers for minutes."""

    cached: None = None  # an answer expires, so each use goes through `refresh`

    def __init__(self, name: str, server: str, environment: Mapping[str, str], clock: Clock) -> None:
        self._name, self._server, self._clock = name, server, clock
        self._program = f"docker-credential-{name}"
        self._environment = {
            key: value for key, value in environment.items() if not key.startswith("REGMESH_SECRET_")
        }
        self._lock = asyncio.Lock()
        self._answer: _Answer | None = None

    async def refresh(self, side: Side, *, rejected: Credentials | None = None) -> Credentials | None:
        """Returns the cached answer while it is fresh, else runs the helper; concurrent calls share one run.

        Raises:
            HelperFailed: The helper is missing, cannot be run, timed out or printed no valid credentials.
        """
        async with self._lock:
            if self._answer is None or not self._answer.is_fresh(self._clock.monotonic(), rejected):
                self._answer = await self._fetch()
            answer = self._answer
        if answer.failure is not None:
            raise HelperFailed(answer.failure, side=side)
        return answer.credentials

    async def _fetch(self) -> _Answer:
        try:
            credentials = await self._get()
        except _Failure as failure:
            return _Answer(self._clock.monotonic(), failure=str(failure))
        return _Answer(self._clock.monotonic(), credentials)

    async def _get(self) -> Credentials | None:
        if not _NAME.fullmatch(self._name):
            raise _Failure(
                f"config.json names the credential helper {self._name[:40]!r}, which is not a valid helper name"
            )
        path = shutil.which(self._program, path=self._environment.get("PATH", os.defpath))
        if path is None:
            raise _Failure(f"{self._program}, which config.json names for {self._server}, is not on PATH")
        try:
            async with asyncio.timeout(_TIMEOUT):
                code, output = await self._run(path)
        except TimeoutError:
            raise self._failure(f"gave no answer within {_TIMEOUT:.0f} s") from None
        except OSError as error:
            raise self._failure(f"cannot be run ({error.strerror})") from None
        if code != 0:
            if output.strip() == _NOT_FOUND:
                return None
            raise self._failure(f"ended with exit code {code}")
        return self._parse(output)

    async def _run(self, path: str) -> tuple[int, bytes]:
        """Returns the helper's exit code and output."""
        process = await asyncio.create_subprocess_exec(
            path, "get", stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=self._environment, start_new_session=True
        )  # fmt: skip
        try:
            output = await self._communicate(process)
            return await process.wait(), output
        except BaseException:
            await _kill(process)
            raise

    async def _communicate(self, process: Process) -> bytes:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(ConnectionError):  # a helper with one server need not read its name
            process.stdin.write(self._server.encode())
            await process.stdin.drain()
        process.stdin.close()
        output = bytearray()
        while part := await process.stdout.read(_MAX_OUTPUT):
            output += part
            if len(output) > _MAX_OUTPUT:
                raise self._failure(f"printed more than {_MAX_OUTPUT} bytes")
        return bytes(output)

    def _parse(self, output: bytes) -> Credentials | None:
        try:
            answer = orjson.loads(output)
            user, secret = answer["Username"], answer["Secret"]
        except (ValueError, KeyError, TypeError):
            user = secret = None
        if not isinstance(user, str) or not isinstance(secret, str):
            raise self._failure("printed no valid credentials")
        if user == _IDENTITY_USER:
            return Credentials(None, secret, is_identity=True)
        return Credentials(user, secret) if user or secret else None

    def _failure(self, what: str) -> _Failure:
        return _Failure(
            f"{self._program} {what}: try `echo {self._server} | {self._program} get` where regmesh runs"
        )


async def _kill(process: Process) -> None:
    """Kills the process group: children of a script would keep its pipe open."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    assert process.stdout is not None
    with contextlib.suppress(TimeoutError):  # a child that left the group still has the pipe
        async with asyncio.timeout(_KILL_TIMEOUT):
            while await process.stdout.read(_MAX_OUTPUT):
                pass  # asyncio does not see the end while its buffer is full
            await process.wait()
