"""What a place's answer means for a client: theirs, or a reason to ask the next place. Pure.

The borders between accounts hold here. Whoever refuses has the say: then no other account is asked, so its content
never stands in for what was refused. And an instance whose places are silent may hold what is asked for by name:
then another account's of the same name is no answer either.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from schemas.names import Account


class Meaning(StrEnum):
    SERVED = "served"  # the answer, whatever it says
    ABSENT = "absent"
    UNAUTHORIZED = "unauthorized"  # 401: it does not know who asks
    DENIED = "denied"  # 403: it knows, and says no
    TROUBLE = "trouble"  # it cannot tell now


_OF_STATUS = {
    401: Meaning.UNAUTHORIZED, 403: Meaning.DENIED, 404: Meaning.ABSENT, 408: Meaning.TROUBLE, 429: Meaning.TROUBLE,
}  # fmt: skip


def meaning(status: int) -> Meaning:
    return Meaning.TROUBLE if status >= 500 else _OF_STATUS.get(status, Meaning.SERVED)


@dataclass(slots=True)
class Inquiry:
    """What the places of one instance have said so far."""

    by_name: bool
    authorized: bool  # the client says who it is
    said: list[Meaning] = field(default_factory=list)
    home_has_it_not: bool = False

    def take(self, found: Meaning, *, has_the_say: bool, was_absent: bool = False) -> None:
        """`was_absent`: before it fell silent it said that it has it not."""
        self.said.append(found)
        absent = found is Meaning.ABSENT or (found is Meaning.TROUBLE and was_absent)
        self.home_has_it_not = self.home_has_it_not or (has_the_say and absent)

    @property
    def goes_on(self) -> bool:
        """Whether the next place of this instance is to be asked.

        One that knows the client may stand behind one that does not: both are of one account.
        """
        return self.said[-1] in (Meaning.ABSENT, Meaning.TROUBLE) or (
            self.said[-1] is Meaning.UNAUTHORIZED and self.authorized
        )

    @property
    def refused(self) -> bool:
        """What the instance itself has not, its replicas do not refuse: they know other clients."""
        refusals = (Meaning.UNAUTHORIZED, Meaning.DENIED)
        return not self.home_has_it_not and any(one in refusals for one in self.said)

    def leaves_it_to_others(self, *, same_account: bool) -> bool:
        """Whether the next instance may be asked, of the same account or of another."""
        if self.refused:
            return same_account and self.authorized and Meaning.DENIED not in self.said
        return same_account or self.home_has_it_not or not self.by_name


def may_be_asked(account: Account, heard: Sequence[tuple[Account, Inquiry]]) -> bool:
    """Whether an instance of `account` is next, after what all those listed before it have said."""
    return all(one.leaves_it_to_others(same_account=account == whose) for whose, one in heard)
