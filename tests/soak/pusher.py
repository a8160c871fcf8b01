"""Pushes small images to the source, moves their tags and deletes some, at random moments from a seed."""

import random
import threading
import time
from dataclasses import dataclass
from http.client import HTTPException

from tests.soak.ledger import Ledger, Name
from tests.soak.wire import Registry, image

_LARGEST = 64 * 1024


@dataclass(frozen=True)
class Load:
    """What is written: how many tags, how often, and which share of writes are deletions."""

    repositories: int = 10
    tags: int = 6
    per_second: float = 3.0
    deletions: float = (
        0.01  # a rule that deletes 20 tags and a fifth of them in ten minutes waits for a human
    )


class Pusher:
    """Writes in a thread between `start` and `stop`; what is acknowledged stands in the ledger."""

    def __init__(self, source: str, ledger: Ledger, load: Load, seed: int) -> None:
        self._url, self._ledger, self._load = source, ledger, load
        self._random = random.Random(f"pusher {seed}")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pusher", daemon=True)
        self._lock = threading.Lock()
        self._left_alone: set[Name] = set()
        self.failed = 0

    def start(self) -> None:
        """Begins to write."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the write under way."""
        self._stopped.set()
        self._thread.join(60)

    def push(self, name: Name) -> None:
        """Pushes a new image to a tag, once; raises OSError when the registry does not acknowledge it."""
        with self._lock:
            layers = (f"base of {name.repository}".encode() * 500, self._random.randbytes(self._size()))
            new = image(*layers)
            write = self._ledger.begin(name, new.digest)
            with Registry(self._url) as registry:
                registry.push(*name, new)
            self._ledger.acknowledge(write)

    def leave_alone(self, name: Name) -> None:
        """Writes to a tag no more by itself, so that nothing but the mesh repairs it."""
        self._left_alone.add(name)

    def _delete(self, name: Name) -> None:
        with self._lock, Registry(self._url) as registry:
            digest = registry.digest(*name)
            if digest is not None:
                write = self._ledger.begin(name, None)
                registry.delete(name.repository, digest)
                self._ledger.acknowledge(write)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                is_deletion = self._random.random() < self._load.deletions
                (self._delete if is_deletion else self.push)(self._name())
            except (OSError, HTTPException):
                self.failed += 1
                time.sleep(0.1)
            self._stopped.wait(self._random.expovariate(self._load.per_second))

    def _name(self) -> Name:
        while True:
            repository = self._random.randrange(self._load.repositories)
            name = Name(
                f"team{repository % 3}/app{repository}", f"v{self._random.randrange(self._load.tags)}"
            )
            if name not in self._left_alone:
                return name

    def _size(self) -> int:
        return self._random.randrange(1, _LARGEST)
