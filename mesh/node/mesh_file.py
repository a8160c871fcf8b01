"""`mesh.yaml`: read, judged whole, and every problem told with its line."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mesh.errors import InvalidInput
from mesh.rules import declarations


class MeshFile(NamedTuple):
    """A document and where its parts stand."""

    path: str
    document: dict[str, Any]
    root: yaml.Node | None

    def line(self, path: declarations.Path) -> int:
        """The line (from 1) of the nearest thing that `path` names."""
        node = self.root
        line = node.start_mark.line + 1 if node is not None else 1
        for part in path:
            node, mark = _child(node, part)
            if mark is None:
                break
            line = mark.line + 1
        return line

    def told(self, problems: Sequence[declarations.Problem]) -> list[str]:
        """The problems for people: `mesh.yaml:12: rules[0].source: no instance is named ...`."""
        return [
            f"{self.path}:{self.line(problem.path)}: {problem.where or 'document'}: {problem.message}"
            for problem in problems
        ]


class InvalidFile(InvalidInput):
    """A file with problems, all of them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(problems[0])
        self.problems = problems


def read(path: Path) -> MeshFile:
    """Parse the file; `InvalidFile` when it is not there, or no YAML, or names a key twice."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidFile([f"{path}: cannot be read: {_reason(error)}"]) from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.load(text, Loader=_OnceLoader)  # noqa: S506  # a SafeLoader that also refuses double keys
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise InvalidFile([f"{path}:{line}: not YAML: {error.problem}"]) from error
    except yaml.YAMLError as error:
        raise InvalidFile([f"{path}: not YAML: {error}"]) from error
    except RecursionError as error:
        raise InvalidFile([f"{path}: not YAML that can be read: it is nested too deep"]) from error
    return MeshFile(str(path), {} if document is None else document, root)


def check(file: MeshFile) -> None:
    """Judge the file by itself; `InvalidFile` with every problem."""
    _, problems = declarations.judge(file.document)
    if problems:
        raise InvalidFile(file.told(problems))


class _OnceLoader(yaml.SafeLoader):
    """YAML lets a key stand twice and takes the last in silence; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r} stands here twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


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
