"""May a rule write into another account? Only while that account's grant covers the name at the destination."""

from collections.abc import Iterable, Mapping

from mesh.rules.matching import name_grammar
from mesh.rules.matching.patterns import BadPattern, compile_pattern
from schemas.declared import Declared
from schemas.grants import Grant
from schemas.names import Account, Repository
from schemas.rules import Rule
from schemas.topology import Instance, Place

Path = tuple[str | int, ...]


def key_of(account: Account, from_account: Account) -> str:
    """Where the grant stands in `mesh.state` by which `account` takes from `from_account`."""
    return f"grant/{account}:{from_account}"


def covers(grant: Declared | None, repository: Repository) -> bool:
    """True when the grant lets this repository of the destination be written."""
    return isinstance(grant, Grant) and any(compile_pattern(glob)(repository) for glob in grant.namespaces)


def refusal(source: Place, destination: Place, repository: Repository, grant: Declared | None) -> str | None:
    """Why `source` may not write `repository` at `destination`, or None when it may.

    `grant` is what stands at `key_of` the destination's and the source's account.
    """
    if source.account == destination.account or covers(grant, repository):
        return None
    if grant is None:
        return f"account {destination.account!r} has no grant for account {source.account!r}"
    return f"the grant {destination.account}:{source.account} does not cover {repository[:100]!r}"


def problems(grant: Grant, everything: Mapping[str, Declared]) -> Iterable[tuple[Path, str]]:
    """Accounts that no instance has, and globs that cannot run."""
    accounts = sorted({thing.account for thing in everything.values() if isinstance(thing, Instance)})
    for field, account in (("account", grant.account), ("from", grant.from_account)):
        if account not in accounts:
            known = ", ".join(accounts) or "none"
            yield (field,), f"no instance belongs to account {account!r}; accounts with instances: {known}"
    for index, glob in enumerate(grant.namespaces):
        try:
            compile_pattern(glob)
        except BadPattern as error:
            yield ("namespaces", index), str(error)
        if (mistake := name_grammar.mistake(glob, "name")) is not None:
            yield ("namespaces", index), mistake


def note(thing: Declared, everything: Mapping[str, Declared]) -> str | None:
    """What whoever declares a rule into another account should know: nothing is copied until that account grants it."""
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
