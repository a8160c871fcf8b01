"""Consent of accounts: a rule writes into another account only while that account's grant covers the repository."""

from collections.abc import Mapping

from mesh.rules.matching.patterns import compile_pattern
from schemas.declared import Declared
from schemas.grants import Grant
from schemas.names import Account, Repository
from schemas.rules import Rule
from schemas.topology import Instance, Place


def key_of(account: Account, from_account: Account) -> str:
    """Returns the key in `mesh.state` of the grant by which `account` receives from `from_account`."""
    return f"grant/{account}:{from_account}"


def covers(grant: Declared | None, repository: Repository) -> bool:
    """Checks whether the grant allows writing this repository of the destination."""
    return isinstance(grant, Grant) and any(compile_pattern(glob)(repository) for glob in grant.namespaces)


def refusal(source: Place, destination: Place, repository: Repository, grant: Declared | None) -> str | None:
    """Returns why `source` may not write `repository` at `destination`; None when it may.

    Args:
        grant: What is declared at `key_of` of the destination's and the source's account.
    """
    if source.account == destination.account or covers(grant, repository):
        return None
    if grant is None:
        return f"account {destination.account!r} has no grant for account {source.account!r}"
    return f"the grant {destination.account}:{source.account} does not cover {repository[:100]!r}"


def note(thing: Declared, everything: Mapping[str, Declared]) -> str | None:
    """Returns a note for the operator who declares a rule into another account that has no grant for it yet."""
    if not isinstance(thing, Rule):
        return None
    source, destination = (everything.get(f"instance/{name}") for name in (thing.source, thing.destination))
    if not isinstance(source, Instance) or not isinstance(destination, Instance):
        return None
    if source.account == destination.account or key_of(destination.account, source.account) in everything:
        return None
    return (
        f"copies nothing until account {destination.account!r} declares a grant for {source.account!r}: "
        f"{thing.destination!r} is its instance"
    )
