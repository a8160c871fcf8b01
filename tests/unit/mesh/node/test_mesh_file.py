"""A mesh.yaml that is YAML but has no form in JSON is reported with its line."""

from pathlib import Path

import pytest

from mesh.node import mesh_file

REGION = "regions:\n  - {name: a, jurisdiction: %s}\n"


def problems(folder: Path, text: str) -> list[str]:
    file = folder / "mesh.yaml"
    file.write_text(text)
    with pytest.raises(mesh_file.InvalidFile) as caught:
        mesh_file.check(mesh_file.read(file))
    return [problem.removeprefix(str(file)) for problem in caught.value.lines]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("1: foo\n", 1, "a key must be text"),
        ("regions:\n  - {1: 2}\n", 2, "a key must be text"),
        ("2026-01-01: 1\n", 1, "unknown"),
        ("regions:\n  - ? [a, b]\n    : c\n", 2, "a key must be text"),
        ("regions:\n  - ? {a: b}\n    : c\n", 2, "a key must be text"),
        (REGION % "2026-13-45" + "names: x\n", 3, "unknown"),
        (REGION % "!!binary aGVsbG8=", 2, "binary"),
        (REGION % "!!set {a, b}", 2, "set"),
        (REGION % "!!timestamp 2026-13-45", 2, "timestamp"),
        (REGION % ("1" * 5000), 2, "4300"),
        (REGION % "123456789012345678901234567890", 2, "64-bit"),
        (REGION % '"\\ud800"', 2, "surrogates"),
        ("regions: &a [*a]\n", 1, "recursive"),
        ("[" * 1000, 1, "nested"),
    ],
)
def test_yaml_without_a_form_in_json_is_reported_with_its_line(
    tmp_path: Path, text: str, line: int, what: str
) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.startswith(f":{line}: ")
    assert what in problem


def test_a_date_stays_text(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(REGION % "2026-01-01")
    found = mesh_file.read(file)
    mesh_file.check(found)
    assert found.document == {"regions": [{"name": "a", "jurisdiction": "2026-01-01"}]}


def test_anchors_and_merged_keys_are_accepted(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(
        "regions:\n  - &one {name: a, jurisdiction: cn}\n  - {<<: *one, name: b}\n  - {<<: *one, name: c}\n"
    )
    found = mesh_file.read(file)
    mesh_file.check(found)
    assert found.document["regions"][2] == {"name": "c", "jurisdiction": "cn"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules:\n  - name: a\n    name: b\n", "3: not YAML: 'name' is given twice"),
        ("rules:\n  ? [a, b]\n  : c\n", "2: not YAML: "),
        ("rules:\n  ? {a: b}\n  : c\n", "2: not YAML: "),
        ("rules: " + "[" * 1000, "nested too deep"),
        ("rules: *nothing", "1: not YAML: "),
    ],
)
def test_invalid_yaml_is_reported_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text(text)
    with pytest.raises(mesh_file.InvalidFile) as caught:
        mesh_file.read(path)
    assert message in str(caught.value)
