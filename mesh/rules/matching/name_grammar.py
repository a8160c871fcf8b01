"""Patterns that no name of a repository, or no tag, can ever fit, whatever a registry holds. Pure.

Told by the text that a match must begin with, end with, or hold in between: `Game/**` asks for a capital letter, and no
repository has one. What cannot be told so (a class, an expression's middle) is let through.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from mesh.rules.matching.patterns import BadPattern, compile_pattern, literal_prefix, literal_suffix

Kind = Literal["name", "tag"]

_MOST_VARIANTS = 64  # of one glob's braces; beyond that it is let through
_INNER_BRACES = re.compile(r"\{([^{}]*)\}")
_WILDCARDS = re.compile(r"\*+|\?|\[[^\]]+\]")

# What a name, and a tag, may begin with, hold and end with, of a text cut out of it.
_NAME_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_JOINT = r"(?:\.|__?|-+|/)"
_BEGINS = {
    "name": re.compile(rf"(?:{_NAME_PART}/)*(?:{_NAME_PART}{_JOINT}?)?"),
    "tag": re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*)?"),
}
_HOLDS = {
    "name": re.compile(rf"{_JOINT}?(?:{_NAME_PART}/)*(?:{_NAME_PART}{_JOINT}?)?"),
    "tag": re.compile(r"[A-Za-z0-9._-]*"),
}
_ENDS = {
    "name": re.compile(rf"(?:{_JOINT}?(?:{_NAME_PART}/)*{_NAME_PART})?"),
    "tag": re.compile(r"[A-Za-z0-9._-]*"),
}
_RULES = {
    "name": "no repository has such a name (lower-case letters and digits, with '.', '_', '-' and '/' between them)",
    "tag": "there can be no such tag (letters, digits, '.', '_', '-')",
}


class _Pieces(NamedTuple):
    """What every match begins with, ends with, and holds in between."""

    head: str
    inner: tuple[str, ...]
    tail: str


def mistake(pattern: str, kind: Kind) -> str | None:
    """Why nothing can ever fit, with what may be meant; None when something can, or when it cannot be told."""
    try:
        compile_pattern(pattern)
        if _can_fit(pattern, kind):
            return None
        lower = pattern.lower()
        meant = kind == "name" and not pattern.startswith("re:") and _can_fit(lower, kind)
    except BadPattern:
        return None  # told where it stands
    return f"{pattern!r} can never match: {_RULES[kind]}" + (f"; did you mean {lower!r}?" if meant else "")


def head(pattern: str) -> str:
    """How everything that fits begins."""
    if pattern.startswith("re:"):
        return literal_prefix(pattern)
    return re.split(r"[*?\[{\\]", pattern, maxsplit=1)[0]


def _can_fit(pattern: str, kind: Kind) -> bool:
    if pattern.startswith("re:"):
        ends = _ENDS[kind].fullmatch(literal_suffix(pattern)) is not None
        return ends and _BEGINS[kind].fullmatch(literal_prefix(pattern)) is not None
    variants = _variants(pattern)
    return variants is None or any(_pieces_fit(_pieces(variant), kind) for variant in variants)


def _pieces_fit(pieces: _Pieces | str, kind: Kind) -> bool:
    if isinstance(pieces, str):  # one text and no other
        whole = _BEGINS[kind].fullmatch(pieces) and _ENDS[kind].fullmatch(pieces)
        return bool(pieces) and whole is not None
    return (
        _BEGINS[kind].fullmatch(pieces.head) is not None
        and _ENDS[kind].fullmatch(pieces.tail) is not None
        and all(_HOLDS[kind].fullmatch(piece) for piece in pieces.inner)
    )


def _pieces(glob: str) -> _Pieces | str:
    """Of a glob without braces. `**/` may stand for nothing at all, its slash too."""
    parts = _WILDCARDS.split(re.sub(r"(^|/)\*\*/", r"\1**", glob))
    if len(parts) == 1:
        return glob
    return _Pieces(parts[0], tuple(parts[1:-1]), parts[-1])


def _variants(glob: str) -> list[str] | None:
    """With one alternative of each brace; None when there are too many, or when a character is escaped or odd."""
    if "\\" in glob or re.search(r"\[[^\]]*[{},/]", glob):
        return None
    found = [glob]
    while any("{" in one for one in found):
        found = [chosen for one in found for chosen in _chosen(one)]
        if len(found) > _MOST_VARIANTS:
            return None
    return found


def _chosen(glob: str) -> Iterator[str]:
    brace = _INNER_BRACES.search(glob)
    if brace is None:
        yield glob
        return
    for choice in brace[1].split(","):
        yield glob[: brace.start()] + choice + glob[brace.end() :]
