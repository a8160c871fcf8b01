"""What pydantic finds wrong with a declaration, in the words of who declares: YAML's types, and what was meant."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from schemas.declared import Declared
from schemas.rules import Rule
from schemas.topology import Replica

_WORDS: Mapping[str, str] = {
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


def told(found: Mapping[str, Any]) -> str:
    """The message of one of pydantic's errors."""
    if (words := _WORDS.get(found["type"])) is not None:
        return words
    message = str(found["msg"]).removeprefix("Value error, ")
    expected = str(found.get("ctx", {}).get("expected", ""))
    return message.replace("Input should be ", "must be ", 1) + meant(
        found["input"], expected.split("'")[1::2]
    )


def meant(said: object, known: Iterable[str]) -> str:
    """`; did you mean ...?`, or nothing when none of the `known` is near."""
    near = difflib.get_close_matches(said.lower(), list(known), n=1) if isinstance(said, str) else []
    return f"; did you mean {near[0]!r}?" if near else ""


def no_rule(name: str, declared: Iterable[Declared]) -> str:
    """That nothing of this name can be run, and what to do."""
    known = [thing.key.partition("/")[2] for thing in declared if thing.noun in (Rule.noun, Replica.noun)]
    return f"no rule or replica is named {name!r}" + (
        meant(name, known) or "; `regmesh get rules` and `regmesh get replicas` show what is"
    )


def own(errors: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Without lists that are too short only because what stands in them is wrong."""
    wrong = [error["loc"] for error in errors]
    return [
        error
        for error in errors
        if error["type"] != "too_short"
        or not any(loc != error["loc"] and loc[: len(error["loc"])] == error["loc"] for loc in wrong)
    ]
