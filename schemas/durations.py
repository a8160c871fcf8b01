"""Durations as people write them in `mesh.yaml`: `60s`, `5m`, `1h30m`, `1d`."""

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(?:\d{1,7}[smhd]){1,4}", re.ASCII)
_HOW = "must be a duration with its unit, such as 60s, 5m, 1h30m or 1d"
_SHORTEST, _LONGEST = timedelta(seconds=1), timedelta(days=30)


def parse_duration(text: str) -> timedelta:
    """Returns the duration that a text names.

    Raises:
        ValueError: It is no duration; the message says how one is written.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(_HOW)
    parts = re.findall(r"(\d+)([smhd])", text)
    return sum((timedelta(**{_UNITS[unit]: int(number)}) for number, unit in parts), timedelta())


def _checked(value: Any) -> Any:
    """YAML's `60` has no unit, so a number is no duration."""
    if not isinstance(value, str):
        raise ValueError(_HOW)  # noqa: TRY004 - pydantic reports it
    if not _SHORTEST <= parse_duration(value) <= _LONGEST:
        raise ValueError("must be from 1s to 30d")
    return value


Duration = Annotated[str, BeforeValidator(_checked)]
