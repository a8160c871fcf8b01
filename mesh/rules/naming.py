"""The name of an artifact at the destination: Harbor's namespace mapping.

`a/b/c/image` with the namespace `n` becomes `n/image` (-1, all levels replaced), `n/a/b/c/image` (0, none),
`n/b/c/image` (1), `n/c/image` (2), `n/image` (3); 4 is impossible. Without a namespace the name stays. Only the
mapping without a namespace and that of 0 keep different names different: others may map two repositories to one name.
"""

from collections.abc import Iterable

from mesh.rules.problems import Problem
from schemas.names import Repository
from schemas.rules import NameFilter, Rule

ALL_LEVELS = -1


class Unmappable(ValueError):
    """The repository has no name at the destination; the message says why."""


def destination_of(rule: Rule, repository: Repository) -> Repository:
    """Returns the name that `rule` gives to `repository` at its destination.

    Raises:
        Unmappable: It has fewer components than the rule replaces, or the name would be too long.
    """
    return mapped(repository, rule.destination_namespace, rule.destination_namespace_replace_count)


def mapped(repository: Repository, namespace: Repository | None, replace_count: int) -> Repository:
    """Returns `repository` with its first `replace_count` components replaced by `namespace`.

    Raises:
        Unmappable: As for `destination_of`.
    """
    if namespace is None:
        return repository
    *levels, last = repository.split("/")
    if replace_count > len(levels):
        raise Unmappable(
            f"{repository!r} has {len(levels)} components before its last, and "
            f"destination_namespace_replace_count is {replace_count}"
        )
    kept = levels[replace_count:] if replace_count >= 0 else []
    name = "/".join([namespace, *kept, last])
    try:
        return Repository(name)
    except ValueError as error:
        raise Unmappable(
            f"under {namespace!r} the name of {repository!r} would be {len(name)} characters long; "
            f"{Repository.longest} at most"
        ) from error


def is_injective(rule: Rule) -> bool:
    """Checks whether no two repositories of the source get one name."""
    return rule.destination_namespace is None or rule.destination_namespace_replace_count == 0


def same_mapping(one: Rule, other: Rule) -> bool:
    """Checks whether both rules give every repository the same name."""
    return one.destination_namespace == other.destination_namespace and (
        one.destination_namespace is None
        or one.destination_namespace_replace_count == other.destination_namespace_replace_count
    )


def source_of(rule: Rule, destination: Repository) -> Repository | None:
    """Returns the one repository that an injective rule copies to `destination`; None when there is none."""
    if rule.destination_namespace is None:
        return destination
    prefix = f"{rule.destination_namespace}/"
    return Repository(destination.removeprefix(prefix)) if destination.startswith(prefix) else None


def literal(pattern: str) -> str | None:
    """Returns the one string that a glob without special characters matches; None for other patterns."""
    return None if pattern.startswith("re:") or any(char in pattern for char in "*?[{\\") else pattern


def problems(rule: Rule) -> Iterable[Problem]:
    """Yields what of the mapping can never work, as far as the patterns show it."""
    field, count = ("destination_namespace_replace_count",), rule.destination_namespace_replace_count
    if rule.destination_namespace is None:
        if count != ALL_LEVELS:
            yield Problem(field, "does nothing without destination_namespace")
        return
    for part in rule.filters:
        if not isinstance(part, NameFilter) or part.decoration == "excludes":
            continue
        if (most := _most_levels(part.value)) is not None and count > most:
            text = (
                f"{part.value!r} matches names with {most} components before their last; {count} are too many"
            )
            yield Problem(field, text)
        elif (name := literal(part.value)) is not None:
            yield from _literal_problems(rule, name)


def _literal_problems(rule: Rule, name: str) -> Iterable[Problem]:
    try:
        destination_of(rule, Repository(name))
    except Unmappable as error:
        yield Problem(("destination_namespace",), str(error))
    except ValueError:
        pass  # not a repository's name: reported as an impossible pattern


def _most_levels(pattern: str) -> int | None:
    """Returns the most components before the last that a match can have; None when they are unbounded."""
    if pattern.startswith("re:") or "**" in pattern or "[" in pattern:  # a class may hold '/' in a range
        return None
    return pattern.count("/")
