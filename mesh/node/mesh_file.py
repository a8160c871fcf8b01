"""`mesh.yaml`: read, judged whole, and every problem told with its line."""

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
_OF_JSON = frozenset(_TAG + name for name in ("map", "seq", "str", "int", "float", "bool", "null"))


class MeshFile(NamedTuple):
    """A document and where its parts stand."""

    path: str
    document: dict[str, Any]
    root: yaml.Node | None

    def line(self, path: FieldPath) -> int:
        """The line (from 1) of the nearest thing that `path` names."""
        node = self.root
        line = node.start_mark.line + 1 if node is not None else 1
        for part in path:
            node, mark = _child(node, part)
            if mark is None:
                break
            line = mark.line + 1
        return line

    def told(self, problems: Sequence[Problem]) -> list[str]:
        """The problems for people, by line: `mesh.yaml:12: rules[0].source: no instance is named ...`."""
        lines = sorted(((self.line(problem.path), problem) for problem in problems), key=itemgetter(0))
        return [
            f"{self.path}:{line}: {problem.where or 'document'}: {problem.message}" for line, problem in lines
        ]


class InvalidFile(InvalidInput):
    """A file with problems, all of them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(problems[0])
        self.lines = problems


def read(path: Path) -> MeshFile:
    """Parse the file, or standard input for `-`.

    `InvalidFile` when it is not there, or no YAML, or more than JSON, or names a key twice.
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
        raise InvalidFile([f"{path}:1: nested too deep"]) from error
    return MeshFile(str(path), {} if document is None else document, root)


def check(file: MeshFile) -> None:
    """Judge the file by itself; `InvalidFile` with every problem."""
    _, problems = declarations.judge(file.document)
    if problems:
        raise InvalidFile(file.told(problems))


class _Loader(yaml.SafeLoader):
    """YAML as far as JSON goes: the API takes no more. Dates stay text.

    YAML lets a key stand twice and takes the last in silence; here that is an error.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  # as its base class has it
        first: [(tag, looks) for tag, looks in known if tag != f"{_TAG}timestamp"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_object(self, node: yaml.Node, deep: bool = True) -> Any:  # noqa: ARG002  # deep finds what holds itself
        if node.tag not in _OF_JSON:
            raise _wrong(node, f"{node.tag.removeprefix(_TAG)!r} is no type of JSON")
        try:
            found = super().construct_object(node, deep=True)
            if isinstance(node, yaml.ScalarNode):
                orjson.dumps(found)
        except (TypeError, ValueError) as error:
            raise _wrong(node, str(error)) from error
        return found

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == f"{_TAG}merge":
                continue
            if key.tag != f"{_TAG}str" or not isinstance(key, yaml.ScalarNode):
                raise _wrong(key, "a key must be text; quotes make it that")
            if key.value in seen:
                raise _wrong(key, f"{key.value!r} stands here twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _wrong(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
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
