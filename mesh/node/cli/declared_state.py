"""What is declared, as commands read it: from control's API, or from a mesh file."""

from collections.abc import Collection, Mapping
from typing import Any

from mesh.clock import SystemClock
from mesh.node.cli.control_client import ControlClient
from mesh.node.mesh_file import MeshFile
from mesh.rules.state import MeshState
from mesh.rules.validation import declarations
from mesh.rules.validation.declarations import SECTIONS
from schemas import codec
from schemas.declared import Noun
from schemas.envelope import make_id
from schemas.state import KINDS, StateRecord


def from_api(control: ControlClient, sections: Collection[str]) -> MeshState:
    """Returns the part of control's state that these sections hold.

    Raises:
        ApiError, ApiUnreachable: Control does not answer as it should.
    """
    state = MeshState()
    for section in sections:
        for item in control.items(f"/api/v1/{section}"):
            _apply(state, SECTIONS[section], item)
    return state


def from_file(file: MeshFile) -> MeshState:
    """Returns what a mesh file declares."""
    state = MeshState()
    for placed in declarations.judge(file.document)[0]:
        _apply(state, placed.thing.noun, placed.thing.model_dump(mode="json"))
    return state


def _apply(state: MeshState, noun: Noun, item: Mapping[str, Any]) -> None:
    """Applies the declared fields of an item; the API adds others."""
    key = f"{noun}/{item['name']}"
    declared = {field: item[field] for field in KINDS[noun].model_fields if field in item}
    record = StateRecord(
        id=make_id(key), time=SystemClock().now(), noun=noun, value=declared, position=item.get("position")
    )
    state.apply(key, codec.encode(record), state.rev + 1)
