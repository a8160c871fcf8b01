"""docs/settings.md, generated: `python -m mesh.node.settings_reference > docs/settings.md`, or `make settings`."""

from collections.abc import Iterator
from inspect import getdoc
from typing import Any

from consumer.settings import AgentSettings
from mesh.control.settings import ControlSettings
from mesh.gateway.settings import GatewaySettings
from mesh.log.kafka.settings import KafkaTimeouts
from mesh.node.settings import NodeSettings, Variable, prefix, variables
from mesh.settings import Settings
from producer.settings import ProducerSettings

GROUPS: tuple[type[Settings], ...] = (
    NodeSettings, AgentSettings, ProducerSettings, ControlSettings, GatewaySettings, KafkaTimeouts,
)  # fmt: skip

_INTRODUCTION = """\
# Settings

Every limit that an operator may need to change is an environment variable of the daemon, read when it starts.
The defaults suit most meshes. For example, a gateway that gives its clients a minute to finish when it is stopped:

    REGMESH_NODE_HTTP_DRAIN=60 regmesh gateway --region shanghai --log kafka://kafka-1:9092

A value that is out of range, or a name that no setting has, ends the command with exit code 2 and one line that names
the variable; every daemon checks the variables of all roles. [operate.md](operate.md) describes the options of the
command line (`--log`, `--listen`, ...), which also have variables.

This page is generated from the code by `make settings`.
"""
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def render() -> str:
    """Returns the whole page."""
    return "\n".join([_INTRODUCTION, *(line for group in GROUPS for line in _section(group))])


def _section(group: type[Settings]) -> Iterator[str]:
    yield f"## {prefix(group).removeprefix('REGMESH_').replace('_', ' ').strip().capitalize()}"
    yield ""
    yield getdoc(group) or ""
    yield ""
    yield "| variable | default | what it sets |"
    yield "| --- | --- | --- |"
    for variable in variables(group):
        what = " ".join((variable.field.description or "").split())
        yield f"| `{variable.name}` | {_text(variable.default)} | {what}{_bounds(variable)} |"
    yield ""


def _text(default: Any) -> str:
    return f"{default:.12g}" if isinstance(default, float) else str(default)


def _bounds(variable: Variable) -> str:
    found = [
        f"{words} {_text(value)}"
        for part in variable.field.metadata
        for name, words in _BOUNDS.items()
        if (value := getattr(part, name, None)) is not None
    ]
    return f" ({', '.join(found)})" if found else ""


if __name__ == "__main__":
    print(render(), end="")
