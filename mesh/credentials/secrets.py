"""Secrets by name, from the environment or files, and credentials for registries from secrets or Docker's config.

Values of secrets never appear on the log, in log lines, metrics, errors or the API, and are sent only to the hosts that
the operator of the process named for them.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from mesh.clock import Clock, SystemClock
from mesh.credentials.credentials import CredentialProvider, Credentials, RefreshingCredentials
from mesh.credentials.docker_config import DockerConfig
from mesh.credentials.hosts import RELAYS, SecretHosts, origin_of, parse_hosts
from mesh.errors import InvalidInput
from schemas.names import SecretName


class Secrets:
    """Looks a secret up at each call, so that a rotated file is read without a restart.

    Args:
        environment: The environment variables.
        clock: The system's by default.
        hosts: Which hosts the operator's mesh file names for each secret; `<NAME>_HOSTS` adds to them.
    """

    def __init__(
        self, environment: Mapping[str, str], clock: Clock | None = None, hosts: SecretHosts | None = None
    ) -> None:
        self._environment, self._hosts = environment, hosts or {}
        directory = environment.get("REGMESH_SECRETS_DIR")
        self._directory = Path(directory) if directory else None
        self._docker = DockerConfig(environment, clock or SystemClock())

    def find(self, name: str) -> str | None:
        """Returns `REGMESH_SECRET_<NAME>`, else the file `<name>` of `REGMESH_SECRETS_DIR`, else None.

        Raises:
            InvalidInput: The file exists and cannot be read.
        """
        return self._find(SecretName(name))

    def _find(self, name: str) -> str | None:
        if (value := self._environment.get(_variable(name))) is not None:
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

    def get_for(self, name: str, url: str) -> str:
        """Returns the value of a secret for requests to the host of `url`.

        Raises:
            InvalidInput: The secret is not for that host, or `get` refuses it.
        """
        self._check_is_for(name, origin_of(url), f"is not for {origin_of(url)}")
        return self.get(name)

    def get_for_relays(self, name: str) -> str:
        """Returns the value of the secret that the mesh's relays share.

        Raises:
            InvalidInput: The secret is not for relays, or `get` refuses it.
        """
        self._check_is_for(name, RELAYS, "is not for relays")
        return self.get(name)

    def credentials(self, name: str | None, url: str) -> CredentialProvider:
        """Returns the credentials of the registry at `url`.

        Args:
            name: The secret that holds `user:password` or a bearer token; None takes Docker's config for the host.
            url: The registry's base URL.

        Raises:
            InvalidInput: The secret is not for this host, or has no usable value.
        """
        return RefreshingCredentials(lambda: self._look_up(name, url))

    def _look_up(self, name: str | None, url: str) -> CredentialProvider | None:
        if name is None:
            return self._docker.find(urlsplit(url).netloc)
        user, colon, password = self.get_for(name, url).partition(":")
        return Credentials(user, password) if colon else Credentials(None, user)

    def _check_is_for(self, name: str, host: str, problem: str) -> None:
        """Is asked before the value is looked up, so that the error does not show whether there is one."""
        if host not in self._hosts_of(name):
            entry, variable = host.removeprefix("https://"), _variable(f"{name}_HOSTS")
            raise InvalidInput(
                f"secret {name!r} {problem}: nothing in the configuration of this process names it there. If it "
                f"belongs there, add {entry} to {variable}, or name it in the file of `regmesh up -f` or --secrets-for"
            )

    def _hosts_of(self, name: str) -> Collection[str]:
        variable = f"{SecretName(name)}_HOSTS"
        listed = self._find(variable)
        named = self._hosts.get(name, ())
        return named if listed is None else {*named, *parse_hosts(_variable(variable), listed)}


def _variable(name: str) -> str:
    return "REGMESH_SECRET_" + name.upper().replace("-", "_")
