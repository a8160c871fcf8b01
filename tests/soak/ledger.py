"""The ledger of a soak: every write to the source, in order, and which of them the registry acknowledged.

Every push is of an image of its own, so the number of a write orders what is seen at a destination. Pure but for the
file that keeps a copy.
"""

import json
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple


class Name(NamedTuple):
    """A tag of a repository."""

    repository: str
    tag: str

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}"


@dataclass(frozen=True)
class Write:
    """One write to a tag; `digest` is None for a deletion."""

    number: int
    repository: str
    tag: str
    digest: str | None


@dataclass(frozen=True)
class StepBack:
    """A destination's tag that named an older digest after a newer one was seen there."""

    place: str
    name: Name
    newest: int
    seen: int
    digest: str

    def __str__(self) -> str:
        return f"{self.place} {self.name}: write {self.seen} ({self.digest[:19]}) after {self.newest}"


class Ledger:
    """All writes, by tag. Safe to use from several threads, as long as one thread writes to a tag at a time."""

    def __init__(self, copy: Path | None = None) -> None:
        self._copy, self._lock = copy, threading.Lock()
        self._number = 0
        self._writes: dict[Name, list[Write]] = defaultdict(list)
        self._acknowledged: dict[Name, Write] = {}  # the newest of each tag
        self.acknowledged = 0
        self.accepted: set[tuple[str, str]] = (
            set()
        )  # repository and digest of pushes whose notification was answered 2xx

    def begin(self, name: Name, digest: str | None) -> Write:
        """Enters a write that is about to be sent."""
        with self._lock:
            self._number += 1
            write = Write(self._number, *name, digest)
            self._writes[name].append(write)
            self._keep({"sent": asdict(write)})
            return write

    def acknowledge(self, write: Write) -> None:
        """Enters that the registry answered success."""
        with self._lock:
            self.acknowledged += 1
            self._acknowledged[Name(write.repository, write.tag)] = write
            self._keep({"acknowledged": write.number})

    def accept(self, body: bytes) -> None:
        """Enters the events of a notification in distribution's format that was answered 2xx."""
        for event in json.loads(body)["events"]:
            target = event.get("target", {})
            if event.get("action") == "push" and target.get("tag"):
                with self._lock:
                    self.accepted.add((target["repository"], target["digest"]))
                    self._keep({"accepted": target["digest"]})

    def names(self) -> list[Name]:
        """Returns all tags that were written."""
        with self._lock:
            return list(self._writes)

    def wanted(self) -> Mapping[Name, Write]:
        """Returns the newest acknowledged write of each tag."""
        with self._lock:
            return dict(self._acknowledged)

    def history(self, name: Name) -> list[Write]:
        """Returns the writes of a tag, oldest first."""
        with self._lock:
            return list(self._writes[name])

    def _keep(self, entry: object) -> None:
        if self._copy is not None:
            with self._copy.open("a") as file:
                file.write(json.dumps(entry) + "\n")


class Timeline:
    """What was seen of one tag at one destination, reading after reading."""

    def __init__(self, place: str, name: Name) -> None:
        self._place, self._name = place, name
        self._newest = 0  # the newest write that a reading proves
        self._is_missing = True
        self._is_back = False

    def see(self, digest: str | None, history: Iterable[Write]) -> StepBack | None:
        """Takes a reading; returns a step back once, when it begins."""
        writes = list(history)
        self._is_missing = digest is None
        if digest is None:  # proves the first deletion after what was seen, and no more
            self._newest = next(
                (it.number for it in writes if it.digest is None and it.number > self._newest > 0),
                self._newest,
            )
            self._is_back = False
            return None
        number = next((it.number for it in writes if it.digest == digest), 0)
        if number >= self._newest:
            self._newest, self._is_back = number, False
            return None
        was_back, self._is_back = self._is_back, True
        return None if was_back else StepBack(self._place, self._name, self._newest, number, digest)

    def has_reached(self, write: Write, history: Iterable[Write]) -> bool:
        """Returns whether the last reading may be of this write or of a newer one."""
        if self._is_back:
            return False
        if self._is_missing:
            return any(it.digest is None and it.number >= write.number for it in history)
        return self._newest >= write.number
