"""Secrets by name: from the environment, from files, or for registries from a Docker `config.json`.

Their values never go on the log, into logs, metrics, errors or the API.
"""

from collections.abc import Mapping
from pathlib import Path

from mesh.clock import Clock, SystemClock
from mesh.credentials.credentials import AskedFor, Credentials, LookedUp
from mesh.credentials.docker_config import DockerConfig
from mesh.errors import InvalidInput
from schemas.names import SecretName


class Secrets:
    """Looks a secret up at each call, so that a rotated file is seen without a restart."""

    def __init__(self, environment: Mapping[str, str], clock: Clock | None = None) -> None:
        self._environment = environment
        directory = environment.get("REGMESH_SECRETS_DIR")
        self._directory = Path(directory) if directory else None
        self._docker = DockerConfig(environment, clock or SystemClock())

    def find(self, name: str) -> str | None:
        """The value of a secret, or None: `REGMESH_SECRET_<NAME>`, then the file `<name>` of `REGMESH_SECRETS_DIR`.

        `InvalidInput` when there is such a file and it cannot be read.
        """
        variable = "REGMESH_SECRET_" + SecretName(name).upper().replace("-", "_")
        if (value := self._environment.get(variable)) is not None:
            return value.rstrip("\r\n")
        path = self._directory / name if self._directory else None
        try:
            return path.read_text().strip() if path is not None and path.is_file() else None
        except (OSError, UnicodeDecodeError) as error:  # whose text may hold what stands in the file
            raise InvalidInput(
                f"the file of secret {name!r} cannot be read: {type(error).__name__}"
            ) from None

    def get(self, name: str) -> str:
        """As `find`; `InvalidInput`, saying what to do, when there is none or it can be in no header."""
        value = self.find(name)
        if value is not None and not value.isprintable():
            raise InvalidInput(f"secret {name!r} has several lines, or characters that cannot be printed")
        if value is None:
            variable = "REGMESH_SECRET_" + name.upper().replace("-", "_")
            raise InvalidInput(
                f"secret {name!r} has no value: set {variable}, or write a file {name!r} in REGMESH_SECRETS_DIR"
            )
        return value

    def credentials(self, name: str | None, host: str) -> AskedFor:
        """For a registry: of the named secret (`user:password`, or a token), else of the Docker config, else none.

        `InvalidInput` when the secret has no value, or none that can be used.
        """
        return LookedUp(lambda: self._look_up(name, host))

    def _look_up(self, name: str | None, host: str) -> AskedFor | None:
        if name is None:
            return self._docker.find(host)
        user, colon, password = self.get(name).partition(":")
        return Credentials(user, password) if colon else Credentials(None, user)
