"""Explains which rules would copy an image and why the others would not, by the same checks as an agent's `match`."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from mesh.rules import boundary, consent, naming
from mesh.rules.matching.compiled_rule import CompiledRule
from mesh.rules.state import MeshState
from mesh.rules.validation import conflicts
from schemas.names import Repository, Tag
from schemas.rules import LabelFilter, PlatformFilter, ResourceFilter, Rule
from schemas.topology import Place


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule, or one replica, decides about one tag.

    `maybe`: there are filters on the image's content, which are decided when it is read.
    """

    rule: str | None
    replica: str | None
    verdict: Literal["yes", "maybe", "no"]
    destination: str | None  # instance/repository:tag
    because: str


def explain(state: MeshState, source: Place, repository: Repository, tag: Tag) -> list[Verdict]:
    """Returns a verdict for each rule of this source, those that would copy first."""
    routes = defaultdict[str, set[conflicts.Route]](set)
    for rule in state.rules():
        if rule.enabled:
            routes[rule.destination].add(conflicts.route_of(rule))
    found = [
        _verdict(compiled, state, routes, source, repository, tag)
        for compiled in state.rules_from(source.name)
    ]
    return sorted(
        found, key=lambda it: (["yes", "maybe", "no"].index(it.verdict), it.rule or it.replica or "")
    )


def _verdict(
    compiled: CompiledRule,
    state: MeshState,
    routes: Mapping[str, Iterable[conflicts.Route]],
    source: Place,
    repository: Repository,
    tag: Tag,
) -> Verdict:
    rule = compiled.rule
    who = _who(rule)
    try:
        name = naming.destination_of(rule, repository)
    except naming.Unmappable as error:
        return Verdict(*who, "no", None, compiled.early_miss(repository, tag) or str(error))
    destination = state.place(rule.destination)
    target = f"{rule.destination}/{name}:{tag}"
    miss = _miss(compiled, state, source, destination, repository, name, tag)
    if miss is not None:
        return Verdict(*who, "no", target, miss)
    left: list[str] = [
        part.type for part in rule.filters if isinstance(part, ResourceFilter | LabelFilter | PlatformFilter)
    ]
    if rule.public_only:
        left.append("public_only")
    if left:
        return Verdict(*who, "maybe", target, f"decided when the image is read: {', '.join(left)}")
    if rule.replica is not None:
        return Verdict(*who, "yes", target, "a replica takes everything; copied on push")
    when = "on push" if rule.trigger.type == "event_based" else f"when it runs ({rule.trigger.type})"
    contested = conflicts.is_contested(routes.get(rule.destination, ()), name)
    unless = ", unless another image holds the tag there (owned_by)" if contested else ""
    return Verdict(*who, "yes", target, f"all its filters hold; copied {when}{unless}")


def _who(rule: Rule) -> tuple[str | None, str | None]:
    """Returns the names of the rule and of the replica, of which one is None."""
    return (str(rule.name), None) if rule.replica is None else (None, str(rule.replica))


def _miss(
    compiled: CompiledRule,
    state: MeshState,
    source: Place,
    destination: Place | None,
    repository: Repository,
    name: Repository,
    tag: Tag,
) -> str | None:
    if not compiled.rule.enabled:
        return "the rule is not enabled"
    if destination is None:
        return f"its destination {compiled.rule.destination!r} is not declared"
    if (miss := compiled.early_miss(repository, tag)) is not None:
        return miss
    if (border := boundary.refusal(state, compiled.rule, source, destination)) is not None:
        return border
    grant = state.get(consent.key_of(destination.account, source.account))
    return consent.refusal(source, destination, name, grant)
