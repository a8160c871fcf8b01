"""The house stays one a newcomer can read: rooms of a bearable size, and pages that say what the code says."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from mesh.metrics import Metrics
from mesh.node.cli import app
from mesh.rules.validation.declarations import SECTIONS
from schemas import topics
from schemas.names import Region
from schemas.state import KINDS
from schemas.topology import Link, Relay

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


def _fields(model: type[BaseModel], inside: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield inside + (field.alias or name)
    for name, (inner, mark) in {"links": (Link, "[]"), "relay": (Relay, "")}.items():
        if name in model.model_fields:
            yield from _fields(inner, f"{name}{mark}.")


def test_every_field_of_mesh_yaml_is_documented() -> None:
    page = (ROOT / "docs" / "mesh-yaml.md").read_text()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert sections.keys() == SECTIONS.keys()
    for section, text in sections.items():
        told = {
            name
            for row in re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
            for name in re.findall(r"`([^`]+)`", row)
        }
        named_by_others = {"name"} if section in ("replicas", "grants") else set()
        assert told == set(_fields(KINDS[SECTIONS[section]])) - named_by_others, section


def test_every_option_of_a_daemon_is_documented() -> None:
    pages = "".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    commands = typer.main.get_command(app.make_app()).commands  # type: ignore[attr-defined]
    for name in ("up", "producer", "agent", "control", "gateway"):
        for option in (text for parameter in commands[name].params for text in parameter.opts):
            if option not in ("--help", "-h", "--file"):
                assert re.search(re.escape(option) + r"(?![\w-])", pages), (name, option)


def test_every_page_can_be_found_from_the_readme() -> None:
    found, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page not in found:
            found.add(page)
            links = re.findall(r"\]\(([^)#:]+\.md)", page.read_text())
            left += [target for link in links if (target := (page.parent / link).resolve()).exists()]
    assert sorted((ROOT / "docs").rglob("*.md")) == sorted(
        page for page in found if ROOT / "docs" in page.parents
    )


def test_every_metric_is_documented_with_its_help() -> None:
    page = (ROOT / "docs" / "operate.md").read_text()
    registry = CollectorRegistry()
    Metrics(registry)
    for family in registry.collect():
        assert f"| `{family.name}" in page, family.name
        assert family.documentation in page, family.name


def test_every_topic_is_documented() -> None:
    page = (ROOT / "docs" / "flow.md").read_text()
    for topic in topics.all_topics([Region("x")]):
        assert f"`{topic.replace('.x.', '.<region>.')}`" in page


@pytest.mark.parametrize("name", ["synchronization.md", "replication.md"])
def test_every_test_that_shows_a_feature_exists(name: str) -> None:
    page = (ROOT / "docs" / name).read_text()
    named = re.findall(r"`(tests/[^`]+)`", page)
    assert named
    for file, _, test in (it.partition("::") for it in named):
        assert (ROOT / file).is_file(), file
        assert re.search(rf"\bdef {re.escape(test)}\(", (ROOT / file).read_text()), f"{file}::{test}"


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
