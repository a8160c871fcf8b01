"""`regmesh diff`: compare two registries tag by tag, and start what mends the destination."""

import asyncio
import os
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer

from mesh.clock import SystemClock
from mesh.concurrency import close_all
from mesh.credentials.secrets import Secrets
from mesh.errors import InvalidInput, clean
from mesh.node.cli import daemon_options, declared_state
from mesh.node.cli.control_client import ControlClient
from mesh.node.cli.options import DEFAULT_SERVER, AllowNetwork, Output, Server, TokenRealm, argument, option
from mesh.node.cli.output import Columns, Format, ProgressLine, fields, show
from mesh.node.node import Trust
from mesh.node.registries import opener
from mesh.rules import naming
from mesh.rules.matching.compiled_rule import CompiledRule
from mesh.rules.matching.patterns import compile_pattern
from mesh.rules.state import MeshState
from producer.compare import Comparison, Difference, Kind
from schemas.completions import Side
from schemas.executions import MAX_IMAGES, ImageName
from schemas.names import PlaceName
from schemas.rules import ReplicaRule
from schemas.topology import Place

_SECTIONS = ("regions", "instances", "replicas", "rules")
_SHORT_DIGEST = 19  # characters, `sha256:` and 12 digits; -o json has all of it
_PROGRESS_SECONDS = 0.5
_NOT_MENDED = frozenset({Kind.EXTRA, Kind.UNDECIDED})


@dataclass(frozen=True)
class _Ports:
    """What opening registries needs, for one command."""

    trust: Trust
    clock: SystemClock = field(default_factory=SystemClock)

    @cached_property
    def secrets(self) -> Secrets:
        return Secrets(os.environ, self.clock, self.trust.secret_hosts)

    def random(self) -> float:
        return random.random()  # noqa: S311


@dataclass(frozen=True, slots=True)
class _Scope:
    """What of the rule is compared, as the options say."""

    repository: str | None
    tag: str | None
    images: Sequence[ImageName] = ()


def diff(
    source: Annotated[str, argument("The instance or replica that decides what should be there.")],
    destination: Annotated[str, argument("The instance or replica (INSTANCE@REGION) to compare with it.")],
    rule: Annotated[
        str | None, option("Compare what this rule copies, under the names that it gives.", metavar="RULE")
    ] = None,
    repository: Annotated[
        str | None,
        option("Only matching repositories of SOURCE: a name or a pattern such as game/**.", metavar="GLOB"),
    ] = None,
    tag: Annotated[
        str | None, option("Only matching tags: a name or a pattern such as v1.*.", metavar="GLOB")
    ] = None,
    deep: Annotated[
        bool, option("Also look at every manifest and blob below the tags that are equal.", "--deep")
    ] = False,
    repair: Annotated[bool, option("Start executions that copy again what differs.", "--repair")] = False,
    exit_code: Annotated[bool, option("Exit with 1 when something differs.", "--exit-code")] = False,
    file: Annotated[
        Path | None,
        option(
            "Take the places, and the hosts of their secrets, from this mesh.yaml instead of control.",
            "--file",
            "-f",
            metavar="FILE",
        ),
    ] = None,
    allow_network: AllowNetwork = None,
    token_realm: TokenRealm = None,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Compare two registries tag by tag, by asking both of them.

    Shows tags that are missing, different, or extra at DESTINATION, and equal ones that lack a referrer or (--deep)
    content. This machine must reach both registries; it uses its own secrets, as daemons do. What differs is looked at
    again after 5 s, since a push may be on its way.

    Exits with 1 when the comparison is incomplete. Example: regmesh diff game-cn game-cn@shanghai --deep --exit-code
    """  # fmt: skip
    declared = daemon_options.read_mesh_file(file)
    trust = daemon_options.parse_trust(allow_network, token_realm, declared)
    for pattern in filter(None, (repository, tag)):
        compile_pattern(pattern)
    control = ControlClient(server)
    state = declared_state.from_file(declared) if declared else declared_state.from_api(control, _SECTIONS)
    places = _place(state, source), _place(state, destination)
    compiled = _compared_rule(state, rule, *places)
    comparison, found = asyncio.run(
        _compare(compiled, places, _Scope(repository, tag), _Ports(trust), deep=deep)
    )
    _show(comparison, found, output)
    if repair and found:
        _repair(control, state, places, compiled if rule is not None else None, found)
    if comparison.errors or (exit_code and found):
        raise typer.Exit(1)


async def _compare(
    compiled: CompiledRule, places: tuple[Place, Place], scope: _Scope, ports: _Ports, *, deep: bool
) -> tuple[Comparison, list[Difference]]:
    open_endpoint = opener(ports)
    source, destination = open_endpoint(places[0]), open_endpoint(places[1])
    try:
        comparison = Comparison(
            source.registry(Side.SOURCE), destination.registry(Side.DESTINATION), compiled, scope,
            ports.clock, ports.random, deep=deep,
        )  # fmt: skip
        async with asyncio.TaskGroup() as tasks:
            showing = tasks.create_task(_show_progress(comparison), name="show progress")
            try:
                found = await comparison.differences()
            finally:
                showing.cancel()
        return comparison, found
    finally:
        await close_all(source.close, destination.close)


async def _show_progress(comparison: Comparison) -> None:
    """Rewrites one line on a terminal; elsewhere only the result is shown."""
    line = ProgressLine(quiet=True)
    try:
        while True:
            suspects = f", {comparison.suspects} to look at again" if comparison.suspects else ""
            line.show(f"{comparison.compared} tags compared{suspects}")
            await asyncio.sleep(_PROGRESS_SECONDS)
    finally:
        line.end()


def _place(state: MeshState, name: str) -> Place:
    found = state.place(name)
    if found is None:
        known = ", ".join(sorted(place.name for place in state.places())) or "none is declared"
        raise InvalidInput(f"no instance or replica is named {clean(name, 80)!r}: {known}")
    return found


def _compared_rule(state: MeshState, name: str | None, source: Place, destination: Place) -> CompiledRule:
    """Returns the named rule; without a name, one that copies everything under the same names."""
    if name is None:
        everything = ReplicaRule(name=destination.name, source=source.instance, destination=destination.name)
        return CompiledRule(everything)
    found = state.rule(name)
    if found is None:
        raise InvalidInput(f"no rule is named {clean(name, 80)!r}; see `regmesh get rules`")
    if (found.rule.source, found.rule.destination) != (source.name, destination.name):
        raise InvalidInput(
            f"rule {name!r} copies from {found.rule.source!r} to {found.rule.destination!r}, "
            f"not from {source.name!r} to {destination.name!r}"
        )
    if not found.rule.enabled:
        return CompiledRule(found.rule.model_copy(update={"enabled": True}))
    return found


def _show(comparison: Comparison, found: Sequence[Difference], output: Format) -> None:
    rows = [_row(one) for one in found]
    errors = [clean(str(error)) for error in comparison.errors]
    if output is Format.TABLE:
        show(rows, _COLUMNS, output)
    else:
        document = {"compared": comparison.compared, "differences": rows, "errors": errors}
        show([document], {}, output, one=True)
    for error in errors:
        print(f"regmesh: not compared: {error}", file=sys.stderr)
    differ = f"{len(rows)} differ{'s' if len(rows) == 1 else ''}" if rows else "no difference"
    print(f"regmesh: {comparison.compared} tags compared: {differ}", file=sys.stderr)


def _row(one: Difference) -> Mapping[str, Any]:
    return {
        "kind": one.kind.value,
        "repository": one.repository,
        "destination_repository": one.destination_repository,
        "tag": one.tag,
        "source": one.source,
        "destination": one.destination,
        "detail": one.detail or None,
    }


def _repair(
    control: ControlClient,
    state: MeshState,
    places: tuple[Place, Place],
    compiled: CompiledRule | None,
    found: Sequence[Difference],
) -> None:
    """Starts an execution of the rule that copies each tag; of an extra tag nobody knows who wants it."""
    wanted: dict[tuple[str, bool], list[ImageName]] = {}
    unmended = 0
    for one in found:
        name = None if one.kind in _NOT_MENDED else _rule_for(state, places, compiled, one)
        if name is None:
            unmended += 1
            continue
        resend = one.kind is Kind.CONTENT_MISSING
        wanted.setdefault((name, resend), []).append(ImageName(repository=one.repository, tag=one.tag))
    for (name, resend), images in wanted.items():
        for some in _pieces(images):
            body = {
                "rule": name,
                "images": [it.model_dump(exclude_none=True) for it in some],
                "resend": resend,
            }
            answer = control.call("POST", "/api/v1/executions", body=body)
            print(f"{answer['id']} {name}: {len(some)} to copy", file=sys.stderr)
    if unmended:
        print(
            f"regmesh: {unmended} left as they are: extra tags, what a filter on content may leave out, and what no "
            "enabled rule copies. A whole `regmesh sync` of a replica prunes its orphaned tags",
            file=sys.stderr,
        )  # fmt: skip


def _rule_for(
    state: MeshState, places: tuple[Place, Place], compiled: CompiledRule | None, one: Difference
) -> str | None:
    candidates = [compiled] if compiled is not None else state.rules_from(PlaceName(places[0].name))
    return next((str(it.rule.name) for it in candidates if _copies(it, places[1], one)), None)


def _copies(it: CompiledRule, destination: Place, one: Difference) -> bool:
    if it.rule.destination != destination.name or not it.wants(one.repository, one.tag):
        return False
    try:
        return naming.destination_of(it.rule, one.repository) == one.destination_repository
    except naming.Unmappable:
        return False


def _pieces(images: Sequence[ImageName]) -> Iterable[Sequence[ImageName]]:
    return (images[at : at + MAX_IMAGES] for at in range(0, len(images), MAX_IMAGES))


def _short(digest: str | None) -> str | None:
    return digest[:_SHORT_DIGEST] if digest else None


_COLUMNS: Columns = {
    **fields("kind"),
    "REPOSITORY": lambda it: it["destination_repository"],
    **fields("tag"),
    "SOURCE": lambda it: _short(it["source"]),
    "DESTINATION": lambda it: _short(it["destination"]),
    **fields("detail"),
}
