"""Settings groups from environment variables: what is read, what is refused and how the refusal reads."""

from pathlib import Path

import pytest
from pydantic import Field

from mesh.node.cli import app
from mesh.node.settings import InvalidSettings, from_environment, prefix, variables
from mesh.settings import Settings


class Transfers(Settings):
    """Limits of transfers."""

    blobs_per_task: int = Field(4, gt=0)
    """Blobs that one task copies at once."""
    prefetch: bool = True
    """Whether blobs are prefetched."""


class AgentSettings(Settings):
    """Limits of an agent."""

    drain: float = Field(25.0, gt=0)
    """How long copies may take to finish, in seconds."""
    transfers: Transfers = Transfers(blobs_per_task=7)


class KafkaTimeouts(Settings):
    """Time-outs."""


def test_a_variable_is_named_after_its_group_and_field() -> None:
    assert [variable.name for variable in variables(AgentSettings)] == [
        "REGMESH_AGENT_DRAIN",
        "REGMESH_AGENT_TRANSFERS_BLOBS_PER_TASK",
        "REGMESH_AGENT_TRANSFERS_PREFETCH",
    ]
    assert prefix(KafkaTimeouts) == "REGMESH_KAFKA_TIMEOUTS_"


def test_values_are_parsed_and_the_rest_keeps_its_defaults() -> None:
    environment = {"REGMESH_AGENT_DRAIN": "60", "REGMESH_AGENT_TRANSFERS_PREFETCH": "no", "REGMESH_LOG": "x"}
    assert from_environment(AgentSettings, environment) == AgentSettings(
        drain=60.0, transfers=Transfers(blobs_per_task=7, prefetch=False)
    )
    assert from_environment(AgentSettings, {}) == AgentSettings()


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("DRAIN", "soon", "='soon': Input should be a valid number, unable to parse string as a number"),
        ("DRAIN", "0", "='0': Input should be greater than 0"),
        ("TRANSFERS_BLOBS_PER_TASK", "", "='': Input should be a valid integer, unable to parse string as an integer"),
        ("DRIAN", "1", " is not a setting; did you mean REGMESH_AGENT_DRAIN?"),
        ("TRANSFERS", "1", " is not a setting; did you mean REGMESH_AGENT_TRANSFERS_PREFETCH?"),
        ("X", "1", " is not a setting; docs/settings.md lists all"),
    ],
)  # fmt: skip
def test_what_no_field_accepts_is_named_with_the_reason(name: str, value: str, line: str) -> None:
    with pytest.raises(InvalidSettings) as raised:
        from_environment(AgentSettings, {f"REGMESH_AGENT_{name}": value})
    assert raised.value.lines == [f"REGMESH_AGENT_{name}{line}"]


def test_a_wrong_setting_ends_a_daemon_with_2_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mesh.logging.set_up", lambda **_: None)
    monkeypatch.setenv("REGMESH_NODE_HTTP_DRIAN", "9")
    assert app.run(["control", "--log", "kafka://127.0.0.1:1", "--data", str(tmp_path / "data")]) == 2
    line = "regmesh: REGMESH_NODE_HTTP_DRIAN is not a setting; did you mean REGMESH_NODE_HTTP_DRAIN?\n"
    assert capsys.readouterr().err == line
    assert not (tmp_path / "data").exists()
