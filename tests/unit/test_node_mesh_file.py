"""A mesh.yaml that is no such thing is told with its line, whatever it is instead."""

from pathlib import Path

import pytest

from mesh.node.mesh_file import InvalidFile, read


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rules:\n  - name: a\n    name: b\n", "3: not YAML: 'name' stands here twice"),
        ("rules:\n  ? [a, b]\n  : c\n", "2: not YAML: "),
        ("rules:\n  ? {a: b}\n  : c\n", "2: not YAML: "),
        ("rules: " + "[" * 5000, "nested too deep"),
        ("rules: *nothing", "1: not YAML: "),
    ],
)
def test_what_is_no_document_is_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text(text)
    with pytest.raises(InvalidFile) as caught:
        read(path)
    assert told in str(caught.value)
