"""Secrets that cannot be used are refused without showing their value."""

from pathlib import Path

import pytest

from mesh.credentials.credentials import Credentials
from mesh.credentials.secrets import Secrets
from mesh.errors import InvalidInput


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


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("anna:secret\n", Credentials("anna", "secret")),
        ("a-token\r\n", Credentials(None, "a-token")),
        ("a-token", Credentials(None, "a-token")),
    ],
)
def test_a_secret_ends_before_its_line_break_wherever_it_comes_from(
    tmp_path: Path, value: str, found: Credentials
) -> None:
    (tmp_path / "EU_PUSH").write_text(value)
    by_environment = Secrets({"REGMESH_SECRET_EU_PUSH": value})
    by_file = Secrets({"REGMESH_SECRETS_DIR": str(tmp_path)})
    for secrets in (by_environment, by_file):
        assert secrets.credentials("EU_PUSH", "registry.example").cached == found
