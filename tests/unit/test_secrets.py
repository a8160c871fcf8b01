"""Secrets that cannot be used are said to be so in our own words, wherever they are asked for."""

from pathlib import Path

import pytest

from mesh.errors import InvalidInput
from mesh.secrets import Credentials, Secrets


@pytest.mark.parametrize("bytes_of_file", [b"\xff\xfe", b"token\nof two lines", b"token\x00"])
def test_a_file_that_is_no_secret_is_refused_and_not_shown(tmp_path: Path, bytes_of_file: bytes) -> None:
    (tmp_path / "PUSH").write_bytes(bytes_of_file)
    with pytest.raises(InvalidInput, match="PUSH") as caught:
        Secrets({"REGMESH_SECRETS_DIR": str(tmp_path)}).credentials("PUSH", "registry.example")
    assert "token" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> str:
        raise PermissionError

    (tmp_path / "PUSH").write_text("secret")
    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(InvalidInput, match="PUSH"):
        Secrets({"REGMESH_SECRETS_DIR": str(tmp_path)}).get("PUSH")


def test_the_end_of_a_line_is_no_part_of_a_secret(tmp_path: Path) -> None:
    (tmp_path / "PUSH").write_text("anna:word\n")
    for environment in ({"REGMESH_SECRETS_DIR": str(tmp_path)}, {"REGMESH_SECRET_PUSH": "anna:word\r\n"}):
        assert Secrets(environment).credentials("PUSH", "x") == Credentials("anna", "word")
