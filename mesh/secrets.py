"""Secrets by name: from the environment, from files, or for registries from a Docker `config.json`.

Their values never go on the log, into logs, metrics, errors or the API.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from mesh.errors import InvalidInput
from schemas.names import SecretName


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a registry asks for. With no user, the password is a bearer token."""

    user: str | None
    password: str = field(repr=False)


class Secrets:
    """Looks a secret up at each call, so that a rotated file is seen without a restart."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        directory = environment.get("REGMESH_SECRETS_DIR")
        self._directory = Path(directory) if directory else None
        home = environment.get("DOCKER_CONFIG") or str(Path(environment.get("HOME", "/")) / ".docker")
        self._docker_config = Path(home) / "config.json"

    def find(self, name: str) -> str | None:
        """The value of a secret, or None: `REGMESH_SECRET_<NAME>`, then the file `<name>` of `REGMESH_SECRETS_DIR`.

        Without the line break that editors, shells and mounted secrets put at its end.
        """
        variable = "REGMESH_SECRET_" + SecretName(name).upper().replace("-", "_")
        if (value := self._environment.get(variable)) is not None:
            return value.strip()
        path = self._directory / name if self._directory else None
        if path is None or not path.is_file():
            return None
        return path.read_text().strip()

    def get(self, name: str) -> str:
        """As `find`; `InvalidInput`, saying where to put it, when there is none."""
        value = self.find(name)
        if value is None:
            variable = "REGMESH_SECRET_" + name.upper().replace("-", "_")
            raise InvalidInput(
                f"secret {name!r} has no value: set {variable}, or write a file {name!r} in REGMESH_SECRETS_DIR"
            )
        return value

    def credentials(self, name: str | None, host: str) -> Credentials | None:
        """For a registry: of the named secret (`user:password`, or a token), else of the Docker config, else None."""
        if name is None:
            return self._of_docker(host)
        user, colon, password = self.get(name).partition(":")
        return Credentials(user, password) if colon else Credentials(None, user)

    def _of_docker(self, host: str) -> Credentials | None:
        try:
            auths = orjson.loads(self._docker_config.read_bytes()).get("auths", {})
            encoded = auths[host]["auth"]
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, binascii.Error):
            return None  # no config, or nothing for this host: anonymous
        return Credentials(user, password)
