"""The pages say what the code says: fields, options, metrics, topics, paths and links."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from mesh.metrics import Metrics
from mesh.node.cli import app
from mesh.rules.validation import declarations
from mesh.rules.validation.declarations import SECTIONS
from schemas import topics
from schemas.names import Region
from schemas.state import KINDS
from schemas.topology import Link, Relay

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *DOCS.rglob("*.md"),
    *(ROOT / "examples").rglob("*.md"),
    ROOT / "tests" / "recorded" / "README.md",
]
LONGEST_LINE = 120


def _fields(model: type[BaseModel], inside: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield inside + (field.alias or name)
    for name, (inner, mark) in {"links": (Link, "[]"), "relay": (Relay, "")}.items():
        if name in model.model_fields:
            yield from _fields(inner, f"{name}{mark}.")


def test_every_field_of_mesh_yaml_is_documented() -> None:
    page = (DOCS / "mesh-yaml.md").read_text()
    sections = dict(re.findall(r"^## ([a-z]\w*)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert sections.keys() == SECTIONS.keys()
    for section in SECTIONS:
        documented = {
            name
            for row in re.findall(r"^\| (`[^|]*) \|", sections[section], re.MULTILINE)
            for name in re.findall(r"`([^`]+)`", row)
        }
        derived = {"name"} if section in ("replicas", "grants") else set()
        assert documented == set(_fields(KINDS[SECTIONS[section]])) - derived, section


def test_every_option_of_a_daemon_is_documented() -> None:
    pages = "".join(path.read_text() for path in PAGES)
    commands = typer.main.get_command(app.make_app()).commands  # type: ignore[attr-defined]
    for name in ("up", "producer", "agent", "control", "gateway"):
        for option in (text for parameter in commands[name].params for text in parameter.opts):
            if option not in ("--help", "-h", "--file"):
                assert re.search(re.escape(option) + r"(?![\w-])", pages), (name, option)


def test_every_metric_is_documented_with_its_help() -> None:
    page = (DOCS / "metrics.md").read_text()
    registry = CollectorRegistry()
    Metrics(registry)
    for family in registry.collect():
        assert f"| `{family.name}" in page, family.name
        assert family.documentation in page, family.name


def test_every_topic_is_documented() -> None:
    page = (DOCS / "architecture.md").read_text()
    for topic in topics.all_topics([Region("x")]):
        assert f"`{topic.replace('.x.', '.<region>.')}`" in page


@pytest.mark.parametrize("name", ["synchronization.md", "replication.md", "reliability.md"])
def test_every_test_that_shows_a_feature_exists(name: str) -> None:
    page = (DOCS / name).read_text()
    named = re.findall(r"`(tests/[^`]+)`", page)
    assert named
    for file, _, test in (it.partition("::") for it in named):
        assert (ROOT / file).is_file(), file
        assert re.search(rf"\bdef {re.escape(test)}\(", (ROOT / file).read_text()), f"{file}::{test}"


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_every_path_that_a_page_for_maintainers_names_exists(name: str) -> None:
    top = "consumer|producer|mesh|schemas|tests|docs|examples|compose"
    named = re.findall(
        rf"`((?:{top})/[\w./-]*|\.ci/\w+|[A-Za-z.-]+\.(?:md|toml|yaml))`", (ROOT / name).read_text()
    )
    assert len(named) > 20
    assert [path for path in named if path != "mesh.yaml" and not (ROOT / path).exists()] == []


def test_every_page_can_be_found_from_the_readme() -> None:
    found, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page not in found:
            found.add(page)
            links = re.findall(r"\]\(([^)#:]+\.md)", page.read_text())
            left += [target for link in links if (target := (page.parent / link).resolve()).exists()]
    assert sorted(set(PAGES) - found) == []


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub derives them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_page_and_a_heading(page: Path) -> None:
    for link, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)", page.read_text()):
        target = (page.parent / link).resolve() if link else page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), f"{link}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_of_text_fit_the_page(page: Path) -> None:
    """Except for tables and code, which cannot be wrapped."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    long = [it for it in text.splitlines() if len(it) > LONGEST_LINE and not it.startswith(("|", "    "))]
    assert long == []


def test_every_dependency_says_why() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [
        it for extra in project["optional-dependencies"].values() for it in extra
    ]
    names = {re.split(r"[^\w-]", it)[0] for it in wanted}
    rows = "\n".join(re.findall(r"^\| ([^|]+) \|", (DOCS / "dependencies.md").read_text(), re.MULTILINE))
    assert sorted(name for name in names if not name.startswith("types-") and name not in rows) == []


def _declarations_in(page: Path) -> Iterator[dict[str, list[dict[str, object]]]]:
    """The YAML blocks of a page that hold sections of mesh.yaml."""
    for block in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        found = yaml.safe_load(block)
        if found.keys() <= SECTIONS.keys():
            yield found


def test_every_mesh_yaml_on_a_page_is_accepted() -> None:
    whole = 0
    for page in PAGES:
        for document in _declarations_in(page):
            for section, items in document.items():
                for item in items:
                    KINDS[SECTIONS[section]].model_validate(item)
            if document.keys() >= {"regions", "instances"}:
                whole += 1
                assert declarations.judge(document)[1] == [], page
    assert whole >= 4


def test_pre_commit_runs_what_make_check_runs() -> None:
    (recipe,) = re.findall(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    commands = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()]
    assert [hook["entry"] for hook in hooks] == commands
