"""`mesh.yaml`: read and checked as a whole, with the line of every problem."""

import sys
from collections.abc import Hashable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import yaml

from mesh.errors import InvalidInput
from mesh.rules.problems import FieldPath, Problem
from mesh.rules.validation import declarations

_TAG = "tag:yaml.org,2002:"
_JSON_TAGS = frozenset(_TAG + name for name in ("map", "seq", "str", "int", "float", "bool", "null"))


class MeshFile(NamedTuple):
    """A document with the lines of its parts."""

    path: str
    document: dict[str, Any]
    root: yaml.Node | None

    def line(self, path: FieldPath) -> int:
        """Returns the line (from 1) of the part at `path`, or of the nearest part that exists around it."""
        node = self.root
        line = node.start_mark.line + 1 if node is not None else 1
        for part in path:
            node, mark = _child(node, part)
            if mark is None:
                break
            line = mark.line + 1
        return line

    def format_problems(self, problems: Sequence[Problem]) -> list[str]:
        """Returns a message for each problem, by line: `mesh.yaml:12: rules[0].source: no instance is named ...`."""
        lines = sorted(((self.line(problem.path), problem) for problem in problems), key=itemgetter(0))
        return [
            f"{self.path}:{line}: {problem.where or 'document'}: {problem.message}" for line, problem in lines
        ]


class InvalidFile(InvalidInput):
    """A file with problems; one line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(problems[0])
        self.lines = problems


def read(path: Path) -> MeshFile:
    """Parses the file, or standard input for `-`.

    Raises:
        InvalidFile: It cannot be read, is not YAML, has a type that JSON does not have, or a key twice.
    """
    try:
        text = path.read_text() if str(path) != "-" else sys.stdin.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidFile([f"{path}: cannot be read: {_reason(error)}"]) from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.load(text, Loader=_Loader)  # noqa: S506  # a SafeLoader that takes less
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise InvalidFile([f"{path}:{line}: not YAML: {error.problem}"]) from error
    except yaml.YAMLError as error:
        raise InvalidFile([f"{path}: not YAML: {error}"]) from error
    except RecursionError as error:
        raise InvalidFile([f"{path}:1: nested too deeply"]) from error
    return MeshFile(str(path), {} if document is None else document, root)


def check(file: MeshFile) -> None:
    """Checks the file by itself, without what is declared already.

    Raises:
        InvalidFile: It has problems; the error holds all of them.
    """
    _, problems = declarations.judge(file.document)
    if problems:
        raise InvalidFile(file.format_problems(problems))


class _Loader(yaml.SafeLoader):
    """Accepts the YAML that has a form in JSON, as the API does; dates stay text.

    A key that is given twice is an error; YAML itself silently takes the last one.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  # as in its base class
        first: [(tag, looks) for tag, looks in known if tag != f"{_TAG}timestamp"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_object(self, node: yaml.Node, deep: bool = True) -> Any:  # noqa: ARG002  # always deep, which finds recursive structures
        if node.tag not in _JSON_TAGS:
            raise _error(node, f"{node.tag.removeprefix(_TAG)!r} is not a type of JSON")
        try:
            found = super().construct_object(node, deep=True)
            if isinstance(node, yaml.ScalarNode):
                orjson.dumps(found)
        except (TypeError, ValueError) as error:
            raise _error(node, str(error)) from error
        return found

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == f"{_TAG}merge":
                continue
            if key.tag != f"{_TAG}str" or not isinstance(key, yaml.ScalarNode):
                raise _error(key, "a key must be text: put it in quotes")
            if key.value in seen:
                raise _error(key, f"{key.value!r} is given twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _error(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _child(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node | None, yaml.Mark | None]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return value, key.start_mark
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part].start_mark
    return None, None


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
