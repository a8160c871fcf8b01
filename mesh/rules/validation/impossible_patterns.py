"""Patterns that no repository name, or no tag, can match: `Game/**` needs a capital letter, and no repository has one.

Such a rule would copy nothing, silently: most users meet this with upper case, a leading slash or a tag in the name.
What every match begins with, ends with and contains is extended to a full name, which `schemas.names` accepts or not.
"""

import re
from collections.abc import Callable
from typing import Literal

from mesh.rules.matching.patterns import BadPattern, compile_pattern, literal_prefix, literal_suffix
from schemas.names import Repository, Tag

Kind = Literal["name", "tag"]

_WILDCARD = re.compile(r"\*+/?|\?|\[[^\]]+\]")  # `**/` also matches nothing, without its slash
_PARSE: dict[Kind, Callable[[str], str]] = {"name": Repository, "tag": Tag}
_GRAMMAR = {
    "name": "no repository has such a name (lower-case letters and digits, with '.', '_', '-' and '/' between them)",
    "tag": "there can be no such tag (letters, digits, '.', '_', '-')",
}


def mistake(pattern: str, kind: Kind) -> str | None:
    """Returns why nothing can ever match, with a suggestion; None when something may match, or the pattern is bad."""
    try:
        compile_pattern(pattern)
        if _may_match(pattern, kind):
            return None
        lower = pattern.lower()
        is_case = kind == "name" and not pattern.startswith("re:") and _may_match(lower, kind)
    except BadPattern:
        return None
    return f"{pattern!r} can never match: {_GRAMMAR[kind]}" + (
        f"; did you mean {lower!r}?" if is_case else ""
    )


def _may_match(pattern: str, kind: Kind) -> bool:
    start, end = literal_prefix(pattern), literal_suffix(pattern)
    return (
        _is_valid(kind, start, f"{start}a")
        and _is_valid(kind, end, f"a{end}")
        and all(_is_valid(kind, f"a{piece}a") for piece in _inner(pattern))
    )


def _inner(glob: str) -> list[str]:
    """Returns what each match has between two wildcards. Expressions, braces and escapes are not looked into."""
    is_plain = not glob.startswith("re:") and not any(char in glob for char in "{\\")
    return _WILDCARD.split(glob)[1:-1] if is_plain else []


def _is_valid(kind: Kind, *texts: str) -> bool:
    for text in texts:
        try:
            _PARSE[kind](text)
        except ValueError:
            continue
        return True
    return False
