"""A PostgreSQL server of the test's own, on loopback."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from tests.support.parts import free_port, until

_OPTIONS = ("-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=")


def why_missing() -> str | None:
    """Returns why PostgreSQL cannot be used; None when it can."""
    if importlib.util.find_spec("psycopg") is None:
        return "no psycopg: pip install 'regmesh[postgresql]'"
    missing = [program for program in ("initdb", "postgres") if _program(program) is None]
    return f"no {' and no '.join(missing)} on PATH" if missing else None


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    port: int

    def new_database(self) -> str:
        """Returns the URL of a database that is empty."""
        import psycopg

        name = f"t{uuid4().hex}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql://mesh@127.0.0.1:{self.port}/{database}"


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """Runs a server, with its log in `folder`."""
    port = free_port()
    with tempfile.TemporaryDirectory() as data, (folder / "postgres.log").open("wb") as log:
        user = _user_for(data)
        start = [_program("initdb"), "-D", f"{data}/db", "-A", "trust", "-U", "mesh", "--no-sync"]
        subprocess.run(start, stdout=log, stderr=log, check=True, user=user, cwd=data)
        run = [_program("postgres"), "-D", f"{data}/db", "-p", str(port), *_OPTIONS]
        process = subprocess.Popen(run, stdout=log, stderr=log, user=user, cwd=data)
        try:
            until("postgres is ready", lambda: b"ready to accept" in (folder / "postgres.log").read_bytes())
            yield Server(port)
        finally:
            process.terminate()
            process.wait(30)


def _program(name: str) -> str | None:
    found = shutil.which(name)
    beside = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(beside[-1]) if beside else found


def _user_for(data: str) -> str | None:
    """Returns the user of PostgreSQL's package when we are root, because PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    user = pwd.getpwnam("postgres")
    os.chown(data, user.pw_uid, user.pw_gid)
    return "postgres"
