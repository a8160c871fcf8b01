"""Parsing WWW-Authenticate, valid or not."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.registry.challenges import Challenge, choose, parse


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ("Basic", [Challenge("basic")]),
        ('Basic realm="a b"', [Challenge("basic", {"realm": "a b"})]),
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"',
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        ('BEARER Realm = "x" , , SERVICE=y', [Challenge("bearer", {"realm": "x", "service": "y"})]),
        (r'Bearer realm="a\"b\\c"', [Challenge("bearer", {"realm": 'a"b\\c'})]),
        (
            'Negotiate, Basic realm="x", Bearer realm="y",error="invalid_token"',
            [
                Challenge("negotiate"),
                Challenge("basic", {"realm": "x"}),
                Challenge("bearer", {"realm": "y", "error": "invalid_token"}),
            ],
        ),
        ('Bearer realm="first",realm="second"', [Challenge("bearer", {"realm": "first"})]),
        ('Bearer realm="not closed', [Challenge("bearer", {"realm": ""})]),
        ('realm="of nothing"', []),
        ("", []),
        ("\x00\x01", []),
    ],
)
def test_challenges_are_parsed(header: str, challenges: list[Challenge]):
    assert parse([header]) == challenges


def test_bearer_with_a_realm_is_preferred_to_basic():
    chosen = choose(["Negotiate abc==", 'Basic realm="x"', 'Bearer realm="y"'])
    assert chosen == Challenge("bearer", {"realm": "y"})
    assert choose(["Bearer", "Basic"]) == Challenge("basic")
    assert choose(["Bearer", "Digest realm=x"]) is None
    assert choose([]) is None


@given(st.lists(st.text(max_size=200), max_size=5))
def test_any_text_is_parsed_without_an_error(headers: list[str]):
    for challenge in parse(headers):
        assert challenge.scheme


@pytest.mark.parametrize("unit", [" ", ",", '"', "\\", "a ", 'a="', 'a="\\', "a= ", "a=,", "Bearer "])
def test_parsing_takes_linear_time(unit: str):
    began = time.perf_counter()
    parse(["Bearer " + unit * 100_000])
    assert time.perf_counter() - began < 1  # a quadratic reader needs minutes
