"""Durations with units, and what is none."""

from datetime import timedelta

import pytest
from pydantic import TypeAdapter, ValidationError

from schemas.durations import Duration, parse_duration
from schemas.rules import Rule

RULE = {"name": "r", "source": "a", "destination": "b"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("60s", 60), ("5m", 300), ("1h30m", 5400), ("1d", 86400), ("30d", 2592000)],
)
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: int) -> None:
    assert parse_duration(TypeAdapter(Duration).validate_python(text)) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value", ["", "60", "s", "1.5m", "-5s", "5 m", "1w", "0s", "31d", "99999999d", 60, 1.5, True, "\u0661s"]
)
def test_other_values_are_refused_with_an_example(value: object) -> None:
    with pytest.raises(ValidationError, match=r"such as 60s|from 1s to 30d"):
        Rule.model_validate(RULE | {"freshness": value})


def test_a_declaration_without_a_promise_is_written_as_before() -> None:
    """Older versions refuse a declaration with a field that they do not know."""
    assert "freshness" not in Rule.model_validate(RULE).model_dump(mode="json")
    assert "freshness" not in Rule.model_validate(RULE | {"freshness": None}).model_dump(mode="json")
    assert Rule.model_validate(RULE | {"freshness": "60s"}).model_dump(mode="json")["freshness"] == "60s"
