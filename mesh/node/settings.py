"""Settings groups from environment variables: field `drain` of `AgentSettings` is `REGMESH_AGENT_DRAIN`.

A field of a nested group has one part more: `transfers.blobs_per_task` is `REGMESH_AGENT_TRANSFERS_BLOBS_PER_TASK`.
docs/settings.md lists all of them; `mesh.node.settings_reference` writes that page.
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple, TypeVar

from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo

from mesh.errors import InvalidInput
from mesh.settings import Settings

S = TypeVar("S", bound=Settings)


class NodeSettings(Settings):
    """Limits of every daemon."""

    http_drain: float = Field(5.0, ge=0)
    """How long HTTP requests in progress may take to finish when the process stops, in seconds."""

    http_connections: int = Field(4000, gt=0)
    """How many connections of clients one listener accepts; fewer where the limit of open files is low."""

    http_headers_timeout: float = Field(10.0, gt=0)
    """How long the headers of a request may take to arrive, in seconds."""

    http_body_progress: float = Field(30.0, gt=0)
    """In how many seconds the next KiB of a request's body has to arrive."""

    http_send_progress: float = Field(60.0, gt=0)
    """How long a client may take nothing of a response that waits for it, in seconds."""


class InvalidSettings(InvalidInput):
    """Environment variables that no settings group accepts; one line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(problems[0])
        self.lines = problems


class Variable(NamedTuple):
    """An environment variable and the field that it sets; `path` leads to the field through nested groups."""

    name: str
    path: tuple[str, ...]
    field: FieldInfo
    default: Any


def prefix(group: type[Settings]) -> str:
    """Returns what the group's variables start with: `REGMESH_AGENT_` for `AgentSettings`."""
    words = re.findall(r"[A-Z][a-z0-9]*", group.__name__.removesuffix("Settings"))
    return "_".join(["REGMESH", *words, ""]).upper()


def variables(group: type[Settings]) -> list[Variable]:
    """Returns every variable of the group, in the order of its fields."""
    return list(_variables(group(), prefix(group), ()))


def from_environment(group: type[S], environment: Mapping[str, str]) -> S:
    """Returns the group with the values of the environment, and defaults for the rest.

    Raises:
        InvalidSettings: A value is out of range or no number, or no field has that name.
    """
    known = {variable.name: variable for variable in variables(group)}
    given = {name: value for name, value in environment.items() if name.startswith(prefix(group))}
    if unknown := sorted(given.keys() - known.keys()):
        raise InvalidSettings([_unknown(group, name) for name in unknown])
    values = group().model_dump()
    for name, text in given.items():
        *parents, field = known[name].path
        inner = values
        for parent in parents:
            inner = inner[parent]
        inner[field] = text
    try:
        return group.model_validate(values)
    except ValidationError as error:
        names = {variable.path: variable.name for variable in known.values()}
        raise InvalidSettings([
            _invalid(names.get(tuple(map(str, it["loc"])), f"{prefix(group)}*"), it["msg"], given)
            for it in error.errors()
        ]) from error  # fmt: skip


def _variables(group: Settings, prefix: str, path: tuple[str, ...]) -> Iterator[Variable]:
    for name, field in type(group).model_fields.items():
        value = getattr(group, name)
        if isinstance(value, Settings):
            yield from _variables(value, f"{prefix}{name.upper()}_", (*path, name))
        else:
            yield Variable(prefix + name.upper(), (*path, name), field, value)


def _unknown(group: type[Settings], name: str) -> str:
    start = prefix(group)
    fields = [variable.name.removeprefix(start) for variable in variables(group)]
    near = get_close_matches(name.removeprefix(start), fields, n=1)
    return f"{name} is not a setting; " + (
        f"did you mean {start}{near[0]}?" if near else "docs/settings.md lists all"
    )


def _invalid(name: str, reason: str, given: Mapping[str, str]) -> str:
    value = f"={given[name]!r}" if name in given else ""
    return f"{name}{value}: {reason.removeprefix('Value error, ')}"
