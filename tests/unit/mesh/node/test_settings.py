"""Settings groups from environment variables: what is read, what is refused and how the refusal reads."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pydantic import Field

from mesh.metrics import Metrics
from mesh.node import roles
from mesh.node.cli import app
from mesh.node.node import open_node
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


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("NODE_HTTP_DRIAN", "9", " is not a setting; did you mean REGMESH_NODE_HTTP_DRAIN?"),
        (
            "AGENT_WINDOW_POLL",
            "no",
            "='no': Input should be a valid number, unable to parse string as a number",
        ),
        ("KAFKA_TIMEOUTS_REQUEST", "0", "='0': Input should be greater than 0"),
    ],
)
def test_a_wrong_setting_of_any_role_ends_a_daemon_with_2_before_the_log_is_opened(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    line: str,
) -> None:
    monkeypatch.setattr("mesh.logging.set_up", lambda **_: None)
    monkeypatch.setenv(f"REGMESH_{name}", value)
    assert app.run(["control", "--log", "kafka://127.0.0.1:1", "--data", str(tmp_path / "data")]) == 2
    assert capsys.readouterr().err == f"regmesh: REGMESH_{name}{line}\n"


async def test_an_option_overrides_the_variable_of_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGMESH_AGENT_TRANSFERS_PREFETCH_BYTES", "7")
    monkeypatch.setenv("REGMESH_AGENT_DRAIN", "60")
    async with open_node(None, tmp_path, metrics=Metrics(CollectorRegistry())) as node:
        agents = [roles.agent_settings(node, prefetch_bytes) for prefetch_bytes in (None, 0)]
    assert [it.transfers.prefetch_bytes for it in agents] == [7, 0]
    assert {it.drain for it in agents} == {60.0}
