"""Docker's `config.json`: credentials of registries by host, in the file or from a helper program that it names."""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from mesh.clock import Clock
from mesh.credentials.credentials import CredentialProvider, Credentials
from mesh.credentials.helper import CredentialHelper

_HUB = "registry-1.docker.io"
_HUB_KEY = "https://index.docker.io/v1/"  # under which `docker login` stores the credentials of Docker Hub


class DockerConfig:
    """Docker's `config.json`, read again at each call; its helpers are kept with their cached answers."""

    def __init__(self, environment: Mapping[str, str], clock: Clock) -> None:
        home = environment.get("DOCKER_CONFIG") or str(Path(environment.get("HOME", "/")) / ".docker")
        self._file = Path(home) / "config.json"
        self._environment, self._clock = environment, clock
        self._helpers: dict[tuple[str, str], CredentialHelper] = {}

    def find(self, host: str) -> CredentialProvider | None:
        """Returns the provider for a host, or None for anonymous access.

        As in Docker: the host's own helper (`credHelpers`), else its entry (`auths`), else the default store
        (`credsStore`).
        """
        names = (_HUB_KEY, host) if host == _HUB else (host,)
        try:
            config = orjson.loads(self._file.read_bytes())
        except (OSError, ValueError):
            return None
        for name in names:
            if helper := _text(_section(config, "credHelpers").get(name)):
                return self._helper(helper, name)
        for name in names:
            if (found := _parse_entry(_section(config, "auths").get(name))) is not None:
                return found
        store = _text(config.get("credsStore")) if isinstance(config, dict) else None
        return self._helper(store, names[0]) if store else None

    def _helper(self, name: str, server: str) -> CredentialHelper:
        key = name, server
        if key not in self._helpers:
            self._helpers[key] = CredentialHelper(name, server, self._environment, self._clock)
        return self._helpers[key]


def _parse_entry(entry: Any) -> Credentials | None:
    """Returns the credentials in the file itself; an entry without any says that a store has them."""
    try:
        if token := _text(entry.get("identitytoken")):
            return Credentials(None, token, is_identity=True)
        user, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        return None
    return Credentials(user, password)


def _section(config: Any, key: str) -> dict[str, Any]:
    found = config.get(key) if isinstance(config, dict) else None
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
