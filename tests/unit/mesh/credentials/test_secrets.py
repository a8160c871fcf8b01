"""Secrets: which values and which hosts they are used for; a refusal never shows the value."""

from pathlib import Path

import pytest

from mesh.credentials.credentials import CredentialProvider, Credentials
from mesh.credentials.hosts import RELAYS, hosts_named_by
from mesh.credentials.secrets import Secrets
from mesh.errors import InvalidInput
from mesh.rules.validation.declarations import judge

VALUE = "robot:s3cret"


@pytest.mark.parametrize("bytes_of_file", [b"\xff\xfe", b"token\nof two lines", b"token\x00"])
def test_a_file_that_is_no_secret_is_refused_and_not_shown(tmp_path: Path, bytes_of_file: bytes) -> None:
    (tmp_path / "PUSH").write_bytes(bytes_of_file)
    with pytest.raises(InvalidInput, match="PUSH") as caught:
        Secrets(
            {"REGMESH_SECRETS_DIR": str(tmp_path)}, hosts={"PUSH": {"https://registry.example"}}
        ).credentials("PUSH", "https://registry.example")
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
    hosts = {"EU_PUSH": {"https://registry.example"}}
    by_environment = Secrets({"REGMESH_SECRET_EU_PUSH": value}, hosts=hosts)
    by_file = Secrets({"REGMESH_SECRETS_DIR": str(tmp_path)}, hosts=hosts)
    for secrets in (by_environment, by_file):
        assert secrets.credentials("EU_PUSH", "https://registry.example").cached == found


def credentials(environment: dict[str, str], url: str, **hosts: set[str]) -> CredentialProvider:
    """Returns the credentials of PROD for a URL, with PROD's value set."""
    return Secrets({"REGMESH_SECRET_PROD": VALUE} | environment, hosts=hosts).credentials("PROD", url)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("https://registry.example", "https://registry.example"),
        ("https://REGISTRY.example:443/", "https://registry.example"),
        ("http://registry.example:5000", "http://registry.example:5000"),
        ("https://[::1]:5000", "https://[::1]:5000"),
    ],
)
def test_a_secret_is_for_the_hosts_that_the_operators_file_names(url: str, named: str) -> None:
    assert credentials({}, url, PROD={named}).cached == Credentials("robot", "s3cret")


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example",
        "https://registry.example:8443",
        "http://registry.example",  # the password would be readable on the way
        "http://registry.example:443",
        "https://registry.example.evil.example",
        "https://evil-registry.example",
    ],
)
@pytest.mark.parametrize(
    ("environment", "hosts"),
    [
        ({}, {"PROD": {"https://registry.example"}}),
        ({"REGMESH_SECRET_PROD_HOSTS": "registry.example"}, {}),
        ({}, {"OTHER": {"https://evil.example"}}),
        ({"REGMESH_SECRET_PROD_HOSTS": ""}, {}),
        ({}, {}),
    ],
)
def test_a_secret_is_for_no_other_host(
    url: str, environment: dict[str, str], hosts: dict[str, set[str]]
) -> None:
    with pytest.raises(InvalidInput, match=r"secret 'PROD' is not for .*REGMESH_SECRET_PROD_HOSTS") as caught:
        credentials(environment, url, **hosts)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "listed", ["registry.example", "a.example, registry.example:443", "https://registry.example\n"]
)
def test_hosts_are_listed_in_the_environment_or_a_file(tmp_path: Path, listed: str) -> None:
    (tmp_path / "PROD").write_text(VALUE)
    (tmp_path / "PROD_HOSTS").write_text(listed)
    by_file = Secrets({"REGMESH_SECRETS_DIR": str(tmp_path)}).credentials("PROD", "https://registry.example")
    by_environment = credentials({"REGMESH_SECRET_PROD_HOSTS": listed}, "https://registry.example")
    assert by_file.cached == by_environment.cached == Credentials("robot", "s3cret")


@pytest.mark.parametrize(
    "listed", ["*", "*.example", "ftp://registry.example", "registry.example/path", "https://", ":"]
)
def test_an_entry_that_is_no_host_is_an_error(listed: str) -> None:
    with pytest.raises(InvalidInput, match=r"REGMESH_SECRET_PROD_HOSTS: .* is no host"):
        credentials({"REGMESH_SECRET_PROD_HOSTS": f"registry.example,{listed}"}, "https://registry.example")


def test_whether_a_secret_exists_is_not_shown_for_a_host_that_it_is_not_for() -> None:
    def refusal(environment: dict[str, str]) -> str:
        with pytest.raises(InvalidInput) as caught:
            Secrets(environment).get_for("PROD", "https://evil.example/hook")
        return str(caught.value)

    assert refusal({"REGMESH_SECRET_PROD": VALUE}) == refusal({})


def test_a_mesh_file_names_hosts_for_credentials_webhooks_and_relays() -> None:
    placed, problems = judge({
        "regions": [
            {"name": "a", "jurisdiction": "x", "relay": {"secret": "RELAY", "url": "http://relay.example:8082"}},
            {"name": "b", "jurisdiction": "x", "relay": {"secret": "LEAF"}},
        ],
        "instances": [
            {"name": "i", "account": "y", "region": "a", "url": "https://i.example", "credentials": "PUSH",
             "intake_secret": "INTAKE"},
            {"name": "open", "account": "y", "region": "a", "url": "https://open.example"},
        ],
        "replicas": [{"instance": "i", "region": "b", "url": "https://r.example:5000", "credentials": "PUSH"}],
        "webhooks": [{"name": "w", "url": "https://hooks.example/path?t=1", "secret": "HOOK"}],
    })  # fmt: skip
    assert problems == []
    assert hosts_named_by(item.thing for item in placed) == {
        "PUSH": {"https://i.example", "https://r.example:5000"},
        "HOOK": {"https://hooks.example"},
        "RELAY": {RELAYS, "http://relay.example:8082"},
        "LEAF": {RELAYS},
    }
