"""How long one image waits for a relay that may have to receive its blobs first. No I/O."""

EXPECTING_SECONDS = 30.0  # the longest wait for a relay that expects the blob itself
NOT_THERE_SECONDS = 5.0  # and for one that does not know the blob, as its event may still arrive


class RelayWaits:
    """The waits of one image: after one blob waited in vain, no other blob waits for the same relay.

    Times are in seconds of the agent's monotonic clock.
    """

    def __init__(self) -> None:
        self._since: dict[str, float] = {}  # by holder: the start of the oldest wait in progress
        self._vain: set[str] = set()

    def is_vain(self, holder: str, started: float, now: float, *, is_expected: bool) -> bool:
        """Returns whether a blob that has waited since `started` should be read elsewhere.

        Args:
            is_expected: The relay has answered that it expects the blob.
        """
        since = self._since.setdefault(holder, started) if is_expected else started
        if now - since > (EXPECTING_SECONDS if is_expected else NOT_THERE_SECONDS):
            self._vain.add(holder)
        return holder in self._vain

    def end(self, holder: str) -> None:
        """Ends the wait for a relay that sends the blob, or refuses it."""
        self._since.pop(holder, None)
