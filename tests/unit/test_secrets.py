"""Where secrets come from, and what becomes of the line break at their end."""

from pathlib import Path

import pytest

from mesh.secrets import Credentials, Secrets


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
        assert secrets.credentials("EU_PUSH", "registry.example") == found
