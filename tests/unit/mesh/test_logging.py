"""What a log line of an error holds: where it happened, and never what the variables were there."""

import io
import logging

import pytest
import structlog

from mesh.logging import set_up

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
