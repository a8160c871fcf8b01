r"""Users' patterns: a doublestar glob, or `re:` and an expression. RE2 runs both in linear time, so none can stall us.

In a glob `*` and `?` stop at `/`, `**` does not, `{a,b}` is either, `[a-z]` and `[!a-z]` are classes and `\` takes the
next character as it is. As in Harbor, `team/**` means what is inside `team`, not a repository named `team`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import takewhile
from typing import Any

import re2

Labels = Mapping[str, str]

_MAX_MEMORY = 1 << 20  # bytes of RE2's program and cache, for each pattern, and for each set of them
_ANYTHING = "(?s:.*)"
_MAX_ALTERNATIVES_DEPTH = 4
_LONGEST_PREFIX = 64
_GLOB_SPECIAL = re.compile(r"[*?\[\]{},\\]")
_PLAIN_EXPRESSION = re.compile(r"(?:[\w/.*+?-]|\[[\w-]+\])*?(?P<end>[\w/-]*)\$?", re.ASCII)  # no choices


class BadPattern(ValueError):
    """The pattern does not compile; the message says why."""


@lru_cache(maxsize=20_000)
def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """Returns a check whether the whole of a text matches.

    Raises:
        BadPattern: The pattern does not compile.
    """
    compiled = _compile(pattern, _expression(pattern))
    return lambda text: (
        compiled.fullmatch(text.encode()) is not None
    )  # bytes: for `str` the binding is slower


@lru_cache(maxsize=20_000)
def compile_label(text: str) -> Callable[[Iterable[Labels]], bool]:
    """Returns a check whether one of several sets of labels has a key, and a value that matches.

    Args:
        text: `KEY`, or `KEY=VALUE` with a pattern for the value.

    Raises:
        BadPattern: There is no key, or the pattern does not compile.
    """
    key, equals, pattern = text.partition("=")
    if not key.strip() or key != key.strip():
        raise BadPattern(f"{text!r} is no label: it is KEY, or KEY=VALUE with a glob for the value")
    if not equals:
        return lambda found: any(key in labels for labels in found)
    matches = compile_pattern(pattern)
    return lambda found: any(key in labels and matches(labels[key]) for labels in found)


def compile_union(patterns: Sequence[str]) -> Callable[[str], list[int] | None] | None:
    """Returns a search for all matching patterns in one pass over the text; None when they exceed RE2's memory.

    The search returns the indices of matching patterns in no order, or None when each has to be tried by itself.
    The patterns must be known to compile.
    """
    union = re2.Set.FullMatchSet(_options())
    try:
        for pattern in patterns:
            union.Add(_expression(pattern))
        sentinel = union.Add(_ANYTHING)
        union.Compile()
    except re2.error:
        return None

    def search(text: str) -> list[int] | None:
        found = union.Match(text)
        # Where RE2 gives up, the binding reports no match at all; the sentinel always matches.
        if found is None or sentinel not in found:
            return None
        return [index for index in found if index != sentinel]

    return search


@lru_cache(maxsize=20_000)
def literal_prefix(pattern: str) -> str:
    """Returns how every match begins, as far as RE2 knows it: up to 64 characters, often none."""
    try:
        low, high = _compile(pattern, f"^(?:{_expression(pattern)})").possiblematchrange(_LONGEST_PREFIX)
    except re2.error:
        return ""  # there is no such range
    common = takewhile(lambda pair: pair[0] == pair[1] < 0x80, zip(low, high, strict=False))
    return bytes(byte for byte, _ in common).decode("ascii")


def literal_suffix(pattern: str) -> str:
    """Returns how every match ends, as far as a glob or a plain expression shows it; often empty."""
    if pattern.startswith("re:"):
        found = _PLAIN_EXPRESSION.fullmatch(pattern, len("re:"))
        return found["end"] if found else ""
    end = _GLOB_SPECIAL.split(pattern)[-1]
    # `**/` also matches nothing, without its slash.
    return end.removeprefix("/") if pattern.removesuffix(end).endswith("**") else end


def _expression(pattern: str) -> str:
    return pattern.removeprefix("re:") if pattern.startswith("re:") else glob_to_regex(pattern)


def _options() -> Any:
    options = re2.Options()
    options.max_mem = _MAX_MEMORY
    options.log_errors = False
    return options


def _compile(pattern: str, expression: str) -> Any:
    try:
        return re2.compile(expression, _options())
    except re2.error as error:
        reason = error.args[0] if error.args else "refused by RE2"
        text = reason.decode() if isinstance(reason, bytes) else str(reason)
        raise BadPattern(f"{pattern!r} is not a pattern that RE2 takes: {text}") from error


def glob_to_regex(glob: str) -> str:
    """Returns the RE2 expression of a doublestar glob.

    Raises:
        BadPattern: A bracket or brace is not closed, or braces are nested too deep.
    """
    out: list[str] = []
    depth = at = 0
    while at < len(glob):
        char = glob[at]
        if char == "*":
            piece, at = _star(glob, at)
        elif char == "[":
            piece, at = _class(glob, at)
        elif char == "\\":
            piece, at = _escaped(glob, at)
        else:
            piece, depth = _single(glob, char, depth)
            at += 1
        out.append(piece)
    if depth:
        raise BadPattern(f"{glob!r}: a '{{' is not closed")
    return "".join(out)


def _star(glob: str, at: int) -> tuple[str, int]:
    if not glob.startswith("**", at):
        return "[^/]*", at + 1
    starts_segment = at == 0 or glob[at - 1] == "/"
    if starts_segment and glob.startswith("**/", at):
        return "(?s:.*/)?", at + 3  # also matches no directory at all
    return "(?s:.*)", at + 2  # a label may have several lines


def _class(glob: str, at: int) -> tuple[str, int]:
    end = glob.find("]", at + 2)
    if end < 0:
        raise BadPattern(f"{glob!r}: a '[' is not closed")
    inside = glob[at + 1 : end]
    negated = inside[0] in "!^"
    members = inside[1:] if negated else inside
    if not members or any(char in "[]\\/&|~" for char in members):
        raise BadPattern(f"{glob!r}: [{inside}] is not a class of plain characters and ranges")
    if members.startswith("-"):
        members = f"\\{members}"  # a literal `-`, not a range
    return f"[^/{members}]" if negated else f"[{members}]", end + 1


def _escaped(glob: str, at: int) -> tuple[str, int]:
    if at + 1 >= len(glob):
        raise BadPattern(f"{glob!r}: ends in a backslash")
    return re2.escape(glob[at + 1]), at + 2


def _single(glob: str, char: str, depth: int) -> tuple[str, int]:
    if char == "?":
        return "[^/]", depth
    if char == "{":
        if depth == _MAX_ALTERNATIVES_DEPTH:
            raise BadPattern(f"{glob!r}: braces nested deeper than {_MAX_ALTERNATIVES_DEPTH}")
        return "(?:", depth + 1
    if char == "}":
        if not depth:
            raise BadPattern(f"{glob!r}: a '}}' that nothing opens")
        return ")", depth - 1
    if char == "," and depth:
        return "|", depth
    return re2.escape(char), depth
