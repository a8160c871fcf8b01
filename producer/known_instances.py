"""The instances declared last, in a file: an intake that starts while the log is away accepts their notifications."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from mesh.clock import Clock
from mesh.log.table import Table
from mesh.rules.state import MeshState
from schemas.topology import Instance

LOG = structlog.get_logger()

_CHECK_SECONDS = 1.0
_RETRY_SECONDS = 10.0
_INSTANCES = TypeAdapter(list[Instance])


class KnownInstances:
    """The declared instances; those of the file until the declared state has been read."""

    def __init__(self, path: Path | None, state: MeshState, table: Table, clock: Clock) -> None:
        """`path` is the file; None keeps none."""
        self._path, self._state, self._table, self._clock = path, state, table, clock
        self._saved: Mapping[str, Instance] = _read(path)
        self._compared = -1  # the number of changes of the state after which the file was compared with it

    @property
    def are_from_file(self) -> bool:
        """Whether the declared state has not been read yet, and the file names instances."""
        return not self._table.ready and bool(self._saved)

    def get(self, name: str) -> Instance | None:
        """Returns an instance by its name."""
        found = self._state.instance(name)
        return self._saved.get(name) if found is None and not self._table.ready else found

    async def run(self) -> None:
        """Writes the file after each change, until cancelled."""
        while self._path is not None:
            await self._clock.sleep(_CHECK_SECONDS)
            if self._table.ready and (changes := self._state.changes) != self._compared:
                await self._save(self._path)
                self._compared = changes

    async def _save(self, path: Path) -> None:
        declared: Mapping[str, Instance] = {it.name: it for it in self._state.instances()}
        while declared != self._saved:
            try:
                await asyncio.to_thread(_write, path, list(declared.values()))
                self._saved = declared
            except OSError as error:
                LOG.warning(
                    "the declared instances are not saved", action="known_instances", error=str(error)
                )
                await self._clock.sleep(_RETRY_SECONDS)


def exist(path: Path) -> bool:
    """Checks whether the file names instances, so that an intake can start without the log."""
    return bool(_read(path))


def _read(path: Path | None) -> Mapping[str, Instance]:
    """Returns what the file has; nothing when it cannot be read, as the log has it too."""
    if path is None:
        return {}
    try:
        return {it.name: it for it in _INSTANCES.validate_json(path.read_bytes())}
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        LOG.warning("the saved instances cannot be read", action="known_instances", error=str(error))
        return {}


def _write(path: Path, instances: list[Instance]) -> None:
    """Replaces the file, durably."""
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(_INSTANCES.dump_json(instances, indent=1))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
