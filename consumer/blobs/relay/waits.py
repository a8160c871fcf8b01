"""Who is passed over for a while, and how long one image waits for a relay that may have to be sent it first. No I/O.

Times are seconds of the agent's monotonic clock.
"""

EXPECTING_SECONDS = 30.0  # how long a relay is waited for that expects the blob itself
NOT_THERE_SECONDS = 5.0  # and one that has not heard of it: its event may be on the way


class PassedOver:
    """Of one agent, by name: a relay's address, a place at it, or a place whose registry is read."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def add(self, name: str, until: float) -> None:
        self._until[name] = max(until, self._until.get(name, until))

    def has(self, name: str, now: float) -> bool:
        until = self._until.get(name)
        if until is not None and now >= until:
            del self._until[name]
            until = None
        return until is not None


class Waits:
    """Of one image: what one of its blobs waited for in vain, no other waits for again."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}  # by holder: the first of the waits that go on
        self._vain: set[str] = set()

    def is_vain(self, holder: str, began: float, now: float, *, is_expected: bool) -> bool:
        """Whether a blob that began to wait at `began` is to go elsewhere; `is_expected`: the relay will get it."""
        since = self._since.setdefault(holder, began) if is_expected else began
        if now - since > (EXPECTING_SECONDS if is_expected else NOT_THERE_SECONDS):
            self._vain.add(holder)
        return holder in self._vain

    def ended(self, holder: str) -> None:
        """It said something else to one of them: it came, or will not."""
        self._since.pop(holder, None)
