"""Messages about mistakes in a declaration, in the terms of YAML, with the name that was probably meant."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from schemas.declared import Declared
from schemas.rules import Rule
from schemas.topology import Replica

_MESSAGES: Mapping[str, str] = {
    "missing": "is required",
    "string_type": "must be text; quotes make it that",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "too_short": "must not be empty",
}


def message_of(error: Mapping[str, Any]) -> str:
    """Returns the message for one of pydantic's errors."""
    if (message := _MESSAGES.get(error["type"])) is not None:
        return message
    message = str(error["msg"]).removeprefix("Value error, ").replace("Input should be ", "must be ", 1)
    expected = str(error.get("ctx", {}).get("expected", "")).split("'")[1::2]
    return message + did_you_mean(error["input"], expected)


def did_you_mean(value: object, known: Iterable[str], otherwise: str = "") -> str:
    """Returns `; did you mean ...?` with the most similar known value, or `otherwise` when none is similar."""
    similar = difflib.get_close_matches(value.lower(), list(known), n=1) if isinstance(value, str) else []
    return f"; did you mean {similar[0]!r}?" if similar else otherwise


def unknown_rule(name: str, declared: Iterable[Declared]) -> str:
    """Returns the message for a name that no rule and no replica has."""
    known = [thing.key.partition("/")[2] for thing in declared if thing.noun in (Rule.noun, Replica.noun)]
    otherwise = "; `regmesh get rules` and `regmesh get replicas` show what is declared"
    return f"no rule or replica is named {name!r}" + did_you_mean(name, known, otherwise)


def name_hint(noun: str, name: str, keys: Iterable[str]) -> str:
    """Returns what to do about a name that is not among the `keys` of what is declared."""
    known = names_of(noun, keys)
    return did_you_mean(name, known, f"; `regmesh get {noun}s` shows what is declared").removeprefix("; ")


def names_of(noun: str, keys: Iterable[str]) -> list[str]:
    """Returns the names in those `keys` that are of this noun, sorted."""
    return sorted(key.partition("/")[2] for key in keys if key.startswith(f"{noun}/"))


def without_followups(errors: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns pydantic's errors without those of lists that are too short only because an item is wrong."""
    wrong = [error["loc"] for error in errors]
    return [
        error
        for error in errors
        if error["type"] != "too_short"
        or not any(loc != error["loc"] and loc[: len(error["loc"])] == error["loc"] for loc in wrong)
    ]
