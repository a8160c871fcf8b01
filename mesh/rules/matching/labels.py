"""Label filters: a key, or a key and a pattern for its value. Pure."""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from mesh.rules.matching.patterns import BadPattern, compile_pattern

Labels = Mapping[str, str]


@lru_cache(maxsize=20_000)
def compile_label(text: str) -> Callable[[Iterable[Labels]], bool]:
    """True when one of some sets of labels has the key, with a value that the pattern describes; `BadPattern`."""
    key, equals, pattern = text.partition("=")
    if not key.strip() or key != key.strip():
        raise BadPattern(f"{text!r} is no label: it is KEY, or KEY=VALUE with a glob for the value")
    matches = compile_pattern(pattern) if equals else _any_value
    return lambda found: any(key in labels and matches(labels[key]) for labels in found)


def _any_value(_: str) -> bool:
    return True
