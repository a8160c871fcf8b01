"""Secrets by name, from the environment or files, and credentials for registries from secrets or Docker's config.

Values of secrets never appear on the log, in log lines, metrics, errors or the API.
"""

from collections.abc import Mapping
from pathlib import Path

from mesh.clock import Clock, SystemClock
from mesh.credentials.credentials import CredentialProvider, Credentials, RefreshingCredentials
from mesh.credentials.docker_config import DockerConfig
from mesh.errors import InvalidInput
from schemas.names import SecretName


class Secrets:
    """Looks a secret up at each call, so that a rotated file is read without a restart."""

    def __init__(self, environment: Mapping[str, str], clock: Clock | None = None) -> None:
        self._environment = environment
        directory = environment.get("REGMESH_SECRETS_DIR")
        self._directory = Path(directory) if directory else None
        self._docker = DockerConfig(environment, clock or SystemClock())

    def find(self, name: str) -> str | None:
        """Returns `REGMESH_SECRET_<NAME>`, else the file `<name>` of `REGMESH_SECRETS_DIR`, else None.

        Raises:
            InvalidInput: The file exists and cannot be read.
        """
        if (value := self._environment.get(_variable(SecretName(name)))) is not None:
            return value.rstrip("\r\n")
        path = self._directory / name if self._directory else None
        try:
            return path.read_text().strip() if path is not None and path.is_file() else None
        except (OSError, UnicodeDecodeError) as error:  # whose text may hold part of the file
            raise InvalidInput(
                f"the file of secret {name!r} cannot be read: {type(error).__name__}"
            ) from None

    def get(self, name: str) -> str:
        """Returns the value of a secret that has to exist and to fit into an HTTP header.

        Raises:
            InvalidInput: The secret has no value, or one with several lines or unprintable characters.
        """
        value = self.find(name)
        if value is not None and not value.isprintable():
            raise InvalidInput(
                f"secret {name!r} has several lines or unprintable characters: store one line of text"
            )
        if value is None:
            raise InvalidInput(
                f"secret {name!r} has no value: set {_variable(name)}, "
                f"or write a file {name!r} in REGMESH_SECRETS_DIR"
            )
        return value

    def credentials(self, name: str | None, host: str) -> CredentialProvider:
        """Returns the credentials of the registry at `host`.

        Args:
            name: The secret that holds `user:password` or a bearer token; None takes Docker's config for the host.
            host: Host and port, as Docker's config has it.

        Raises:
            InvalidInput: The secret has no usable value.
        """
        return RefreshingCredentials(lambda: self._look_up(name, host))

    def _look_up(self, name: str | None, host: str) -> CredentialProvider | None:
        if name is None:
            return self._docker.find(host)
        user, colon, password = self.get(name).partition(":")
        return Credentials(user, password) if colon else Credentials(None, user)


def _variable(name: str) -> str:
    return "REGMESH_SECRET_" + name.upper().replace("-", "_")
