"""What a place's response means for a client: it is the answer, or the next place is asked.

The borders between accounts are kept here. After a refusal no other account is asked, so that its content never
replaces what was refused. While an instance does not answer it may hold what is asked for by name, so that another
account's artifact of the same name is no answer either. Credentials go to one account only (`nearest`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from schemas.names import Account


class Outcome(StrEnum):
    """What one place's response to a pull amounts to."""

    SERVED = "served"  # the answer, whatever it is
    ABSENT = "absent"
    UNAUTHORIZED = "unauthorized"  # 401: it does not know the client
    DENIED = "denied"  # 403: it knows the client, and refuses
    UNAVAILABLE = "unavailable"  # it cannot answer now


_BY_STATUS = {
    401: Outcome.UNAUTHORIZED, 403: Outcome.DENIED, 404: Outcome.ABSENT,
    408: Outcome.UNAVAILABLE, 429: Outcome.UNAVAILABLE,
}  # fmt: skip


def outcome_of(status: int) -> Outcome:
    """Returns the outcome of a response with this status."""
    return Outcome.UNAVAILABLE if status >= 500 else _BY_STATUS.get(status, Outcome.SERVED)


@dataclass(slots=True)
class Inquiry:
    """The outcomes of one instance's places so far, none of which served.

    Args:
        by_name: Whether a tag or list is asked for, which may differ between instances, and not a digest.
        authorized: Whether the client sends credentials, and they are for this instance.
    """

    by_name: bool
    authorized: bool
    outcomes: list[Outcome] = field(default_factory=list)
    is_known_absent: bool = False  # the instance itself does not have it

    def record(self, outcome: Outcome, *, is_authoritative: bool, was_absent: bool = False) -> None:
        """Records the outcome of the next place.

        Args:
            outcome: What the place answered.
            is_authoritative: Whether the place is the instance itself, and no replica.
            was_absent: Whether the place did not have it when it last answered.
        """
        self.outcomes.append(outcome)
        absent = outcome is Outcome.ABSENT or (outcome is Outcome.UNAVAILABLE and was_absent)
        self.is_known_absent = self.is_known_absent or (is_authoritative and absent)

    @property
    def asks_next_place(self) -> bool:
        """Returns whether the next place of this instance is asked.

        A place may know a client that an earlier one does not know: both belong to one account.
        """
        last = self.outcomes[-1]
        return last in (Outcome.ABSENT, Outcome.UNAVAILABLE) or (
            last is Outcome.UNAUTHORIZED and self.authorized
        )

    @property
    def refused(self) -> bool:
        """Returns whether a place refused. Replicas know other clients: they cannot refuse what is known absent."""
        refusals = (Outcome.UNAUTHORIZED, Outcome.DENIED)
        return not self.is_known_absent and any(one in refusals for one in self.outcomes)

    def allows_next(self, *, same_account: bool) -> bool:
        """Returns whether the next instance may be asked, of the same account or of another."""
        if self.refused:
            return same_account and self.authorized and Outcome.DENIED not in self.outcomes
        return same_account or self.is_known_absent or not self.by_name


def may_ask(account: Account, previous: Sequence[tuple[Account, Inquiry]]) -> bool:
    """Returns whether an instance of `account` may be asked after all instances that are listed before it."""
    return all(one.allows_next(same_account=account == other) for other, one in previous)
