"""Every test asserts something of its own."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
ASSERTING = {
    "until",
    "eventually",
    "read_until",
    "read_count",
    "pytest.raises",
    "pytest.fail",
    "pytest.warns",
}
ASSERTING_PREFIXES = ("assert_", "check_")
WITHOUT = dict[str, str]()  # FILE::TEST with the reason why it needs no assertion


def asserts(function: ast.AST, asserting: set[str]) -> bool:
    """Returns whether `function` contains an assertion, or a call of something that contains one."""
    names = (ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call))
    return any(isinstance(node, ast.Assert) for node in ast.walk(function)) or any(
        name in asserting or name.rpartition(".")[2].startswith(ASSERTING_PREFIXES) for name in names
    )


def without_assertion(tree: ast.Module) -> Iterator[str]:
    """Yields the names of tests that assert nothing, neither themselves nor by functions of their file."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    asserting = set(ASSERTING)
    while more := {it.name for it in functions if asserts(it, asserting)} - asserting:
        asserting |= more
    return (it.name for it in functions if it.name.startswith("test_") and it.name not in asserting)


def test_every_test_asserts_something() -> None:
    found = [
        f"{path.relative_to(TESTS)}::{name}"
        for path in sorted(TESTS.rglob("test_*.py"))
        for name in without_assertion(ast.parse(path.read_text()))
    ]
    assert found == list(WITHOUT)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("assert x", []),
        ("with pytest.raises(ValueError): f()", []),
        ("helper()\n\ndef helper():\n    assert x", []),
        ("helper()\n\ndef helper():\n    return x", ["test_it"]),
        ("check_all(x)", []),
        ("x = f()", ["test_it"]),
    ],
)
def test_an_assertion_is_found_where_it_is(body: str, found: list[str]) -> None:
    assert list(without_assertion(ast.parse(f"def test_it():\n    {body}"))) == found
