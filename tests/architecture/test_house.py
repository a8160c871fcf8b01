"""The code stays readable for a newcomer: files and functions of a bearable size, each named and described."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("schemas", "mesh", "producer", "consumer")
LONGEST_FUNCTION, LONGEST_FILE = 60, 300


def _sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py")


def _functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node
            yield node.name, (node.end_lineno or 0) - first.lineno + 1


def test_no_room_is_too_large() -> None:
    large = [
        f"{path.relative_to(ROOT)}: {lines} lines"
        for path in _sources()
        if (lines := path.read_text().count("\n")) > LONGEST_FILE
    ]
    long = [
        f"{path.relative_to(ROOT)}: {name} of {lines} lines"
        for path in _sources()
        for name, lines in _functions(ast.parse(path.read_text()))
        if lines > LONGEST_FUNCTION
    ]
    assert not large + long


def test_functions_stay_short() -> None:
    lengths = sorted(lines for path in _sources() for _, lines in _functions(ast.parse(path.read_text())))
    assert lengths[len(lengths) // 2] <= 10
    assert lengths[len(lengths) * 9 // 10] <= 25


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in _sources()
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_the_page_to_be_proud_of_is_one_page() -> None:
    assert (ROOT / "consumer" / "image" / "replicate.py").read_text().count("\n") <= 110


def test_nothing_reads_the_machines_clock_but_the_clock() -> None:
    reading = re.compile(r"\btime\.(time|monotonic)\(|datetime\.(now|utcnow)\(")
    found = [str(path.relative_to(ROOT)) for path in _sources() if reading.search(path.read_text())]
    assert found == ["mesh/clock.py"]


@pytest.mark.parametrize("name", ["utils", "helpers", "common", "misc"])
def test_no_file_is_named_for_nothing(name: str) -> None:
    assert [path for path in _sources() if path.stem == name] == []


def test_the_tree_holds_no_address_that_only_one_machine_knows() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    home = re.compile(rb"/work/|/root/")
    found = [
        name
        for name in tracked.split()
        if (ROOT / name).is_file() and home.search((ROOT / name).read_bytes())
    ]
    assert [name for name in found if not name.endswith("test_house.py")] == []
