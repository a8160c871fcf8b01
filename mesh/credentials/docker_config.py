"""Docker's `config.json`: credentials of registries by host, in the file or behind a program that it names."""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from mesh.clock import Clock
from mesh.credentials.credentials import AskedFor, Credentials
from mesh.credentials.helper import CredentialHelper

_HUB = "registry-1.docker.io"
_NAME_OF_HUB = "https://index.docker.io/v1/"  # under which `docker login` keeps it


class DockerConfig:
    """Read anew at each call. Helpers are kept, with what they said a moment ago."""

    def __init__(self, environment: Mapping[str, str], clock: Clock) -> None:
        home = environment.get("DOCKER_CONFIG") or str(Path(environment.get("HOME", "/")) / ".docker")
        self._file = Path(home) / "config.json"
        self._environment, self._clock = environment, clock
        self._helpers: dict[tuple[str, str], CredentialHelper] = {}

    def find(self, host: str) -> AskedFor | None:
        """The helper that is named for the host, else its own entry, else the store of all; None: anonymous."""
        names = (_NAME_OF_HUB, host) if host == _HUB else (host,)
        try:
            config = orjson.loads(self._file.read_bytes())
        except (OSError, ValueError):
            return None
        for name in names:
            if helper := _text(_under(config, "credHelpers").get(name)):
                return self._helper(helper, name)
        for name in names:
            if (found := _of_entry(_under(config, "auths").get(name))) is not None:
                return found
        store = _text(config.get("credsStore")) if isinstance(config, dict) else None
        return self._helper(store, names[0]) if store else None

    def _helper(self, name: str, server: str) -> CredentialHelper:
        key = name, server
        if key not in self._helpers:
            self._helpers[key] = CredentialHelper(name, server, self._environment, self._clock)
        return self._helpers[key]


def _of_entry(entry: Any) -> Credentials | None:
    """Of what stands in the file itself; an entry without a value says that a store has it."""
    try:
        if token := _text(entry.get("identitytoken")):
            return Credentials(None, token, is_identity=True)
        user, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        return None
    return Credentials(user, password)


def _under(config: Any, key: str) -> dict[str, Any]:
    found = config.get(key) if isinstance(config, dict) else None
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
