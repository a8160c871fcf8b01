"""Reads the tags of every destination again and again: finds steps back, and measures how long recoveries take."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException

from tests.soak.ledger import Ledger, Name, StepBack, Timeline, Write
from tests.soak.wire import Registry

_PAUSE = 0.5  # seconds between two rounds


@dataclass
class Watch:
    """Waits until every destination has what was acknowledged when the watch began."""

    left: set[tuple[str, Name]]
    wanted: Mapping[Name, Write]
    began: float = field(default_factory=time.monotonic)
    seconds: float | None = None  # until it was so; None while it is not


class Poller:
    """Polls in one thread, so that the readings of a tag have an order."""

    def __init__(self, places: Mapping[str, str], ledger: Ledger) -> None:
        self._registries = {place: Registry(url) for place, url in places.items()}
        self._ledger = ledger
        self._timelines: dict[tuple[str, Name], Timeline] = {}
        self._watches: list[Watch] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poller", daemon=True)
        self.steps_back: list[StepBack] = []
        self.rounds = 0

    def start(self) -> None:
        """Begins to poll."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the round under way."""
        self._stopped.set()
        self._thread.join(120)
        self.close()

    def close(self) -> None:
        """Closes its connections."""
        for registry in self._registries.values():
            registry.close()

    def watch(self) -> Watch:
        """Returns a watch on all that is acknowledged now."""
        wanted = self._ledger.wanted()
        made = Watch({(place, name) for place in self._registries for name in wanted}, wanted)
        with self._lock:
            self._watches.append(made)
        return made

    def wait(self, watch: Watch, within: float) -> bool:
        """Waits for the end of a watch; returns whether it came in time."""
        deadline = time.monotonic() + within
        while watch.seconds is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return watch.seconds is not None

    def poll(self) -> None:
        """Reads every tag once at every destination. A destination that does not answer is left out."""
        names = self._ledger.names()
        for place, registry in self._registries.items():
            for name in names:
                try:
                    digest = registry.digest(*name)
                except (OSError, HTTPException):
                    break
                timeline = self._timelines.setdefault((place, name), Timeline(place, name))
                found = timeline.see(digest, self._ledger.history(name))
                if found is not None:
                    self.steps_back.append(found)
        self.rounds += 1
        self._look_at_watches()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self.poll()
            self._stopped.wait(_PAUSE)

    def _look_at_watches(self) -> None:
        with self._lock:
            open_watches = [watch for watch in self._watches if watch.seconds is None]
        for watch in open_watches:
            watch.left -= {key for key in watch.left if self._has_reached(key, watch)}
            if not watch.left:
                watch.seconds = time.monotonic() - watch.began

    def _has_reached(self, key: tuple[str, Name], watch: Watch) -> bool:
        timeline = self._timelines.get(key)
        history = self._ledger.history(key[1])
        return timeline is not None and timeline.has_reached(watch.wanted[key[1]], history)
