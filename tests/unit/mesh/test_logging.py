"""What a log line of an error holds: where it happened, and never what the variables were there."""

import io
import logging

import pytest
import structlog

from mesh.logging import OneLineForEachCause, set_up

PASSWORD = "correct-horse"


def _fails(authorization: str) -> None:
    raise RuntimeError(f"with {len(authorization)} letters")


@pytest.mark.parametrize("json", [True, False])
def test_an_unexpected_error_is_reported_without_the_variables_of_its_frames(json: bool) -> None:
    """A frame of the registry client holds the password that it sends."""
    handlers, out = list(logging.getLogger().handlers), io.StringIO()
    try:
        set_up(json=json, stream=out)
        for log in (structlog.get_logger(), logging.getLogger("aiohttp.server")):
            try:
                _fails(f"Bearer {PASSWORD}")
            except RuntimeError:
                log.exception("request failed")
    finally:
        structlog.reset_defaults()
        logging.basicConfig(handlers=handlers, force=True)
    reported = out.getvalue()
    assert reported.count("with 20 letters") >= 2, reported
    assert reported.count("_fails") >= 2, reported
    assert PASSWORD not in reported


def test_lines_of_one_cause_come_once_in_ten_seconds_with_how_many_were_left_out():
    now = 0.0
    limit = OneLineForEachCause(lambda: now)

    def log(action: str, error: str, **fields: object) -> dict[str, object] | None:
        try:
            return dict(limit(None, "warning", {"action": action, "error": error, **fields}))
        except structlog.DropEvent:
            return None

    away = "no Kafka answers"
    assert log("table_waits", away, topic="a") == {"action": "table_waits", "error": away, "topic": "a"}
    for topic in range(50):
        assert log("table_waits", away, topic=str(topic)) is None
    assert log("heartbeat_waits", away) is not None
    assert log("table_waits", "refused") is not None
    assert log("task_parked", away) is not None
    assert log("task_parked", away) is not None  # of another task
    now = 10.5
    assert log("table_waits", away, topic="b") == {
        "action": "table_waits", "error": away, "topic": "b", "repeated": 50,
    }  # fmt: skip
    now = 30.0
    again = log("table_waits", away)
    assert again is not None
    assert "repeated" not in again
