"""Consent: only what a grant names, only between its accounts; grants that can mean nothing are refused."""

import fnmatch
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.rules import consent
from mesh.rules.state import MeshState
from mesh.rules.validation.declarations import judge
from schemas import codec
from schemas.envelope import make_id
from schemas.grants import Grant
from schemas.names import Repository
from schemas.state import StateRecord
from schemas.topology import Instance, Place
from tests.support.control_site import NOW

ACCOUNTS = st.sampled_from(["platform", "sub-a", "sub-b"])
_SEGMENTS = st.lists(st.sampled_from(["base", "apps", "x", "y"]), min_size=1, max_size=4)
REPOSITORIES = _SEGMENTS.map("/".join).map(Repository)
GLOBS = st.tuples(_SEGMENTS, st.sampled_from(["", "/*", "/**"])).map(lambda it: "/".join(it[0]) + it[1])


def _instance(account: str) -> Place:
    return Instance(
        name=f"at-{account}", account=account, region="eu", url="http://127.0.0.1:5000"
    ).as_place()


def _plainly_covers(glob: str, repository: str) -> bool:
    """What the page says, without any pattern engine."""
    wanted, found = glob.split("/"), repository.split("/")
    if wanted[-1] == "**":
        return found[: len(wanted) - 1] == wanted[:-1] and len(found) >= len(wanted)
    return len(found) == len(wanted) and all(map(fnmatch.fnmatchcase, found, wanted))


@given(
    ACCOUNTS,
    ACCOUNTS,
    REPOSITORIES,
    st.lists(st.tuples(ACCOUNTS, ACCOUNTS, st.lists(GLOBS, min_size=1, max_size=3))),
)
def test_consent_is_what_the_grants_say(
    source: str, destination: str, repository: Repository, granted: list[tuple[str, str, list[str]]]
) -> None:
    grants = {
        f"grant/{account}:{giver}": Grant.model_validate(
            {"account": account, "from": giver, "namespaces": globs}
        )
        for account, giver, globs in granted
        if account != giver
    }
    found = consent.refusal(
        _instance(source), _instance(destination), repository,
        grants.get(consent.key_of(_instance(destination).account, _instance(source).account)),
    )  # fmt: skip
    allowed = source == destination or any(
        (grant.account, grant.from_account) == (destination, source)
        and any(_plainly_covers(glob, repository) for glob in grant.namespaces)
        for grant in grants.values()
    )
    assert (found is None) == allowed


def _document(*grants: dict[str, Any], **rule: Any) -> dict[str, Any]:
    return {
        "regions": [{"name": "eu", "jurisdiction": "global"}],
        "instances": [
            {"name": name, "account": name, "region": "eu", "url": f"http://127.0.0.1:{port}"}
            for name, port in (("platform", 5001), ("sub", 5002))
        ],
        "grants": list(grants),
        "rules": [{"name": "base", "source": "platform", "destination": "sub"} | rule],
    }


GRANT = {"account": "sub", "from": "platform", "namespaces": ["base/**"]}


def test_a_grant_is_named_by_its_accounts() -> None:
    placed, problems = judge(_document(GRANT))
    assert problems == []
    (grant,) = [item.thing for item in placed if isinstance(item.thing, Grant)]
    assert (grant.name, grant.key) == ("sub:platform", "grant/sub:platform")
    assert judge(_document(grant.model_dump(mode="json")))[1] == []  # what is shown can be declared


def test_a_rule_into_another_account_may_be_declared_before_its_grant_and_is_noted() -> None:
    for grants, noted in (((), True), ((GRANT,), False)):
        placed, problems = judge(_document(*grants))
        assert problems == []
        everything = {item.thing.key: item.thing for item in placed}
        note = consent.note(everything["rule/base"], everything)
        assert (note is not None) is noted
        assert note is None or "until account 'sub' declares a grant for 'platform'" in note


@pytest.mark.parametrize(
    ("changes", "path", "message"),
    [
        ({"account": "sup"}, "grants[0].account", "no instance belongs to account 'sup'"),
        ({"namespaces": ["Base/**"]}, "grants[0].namespaces[0]", "did you mean 'base/**'?"),
        ({"from": "nobody"}, "grants[0].from", "no instance belongs to account 'nobody'"),
        ({"from": "No body"}, "grants[0].from", "is not a account name"),
        ({"from": "sub"}, "grants[0]", "needs no grant of its own"),
        ({"name": "other:platform"}, "grants[0]", "is named sub:platform"),
        ({"namespaces": []}, "grants[0].namespaces", "must not be empty"),
        ({"namespaces": ["base/{a"]}, "grants[0].namespaces[0]", "not closed"),
        ({"namespaces": ["re:.*"]}, "grants[0].namespaces[0]", "must be a glob"),
        ({"namespaces": ["ok", "base/"]}, "grants[0].namespaces[1]", "'NAMESPACE/**'"),
        (
            {"namespace": ["base/**"]},
            "grants[0].namespace",
            "unknown field 'namespace'; did you mean 'namespaces'",
        ),
    ],
)
def test_grants_that_can_mean_nothing_are_refused(changes: dict[str, Any], path: str, message: str) -> None:
    found = {problem.where: problem.message for problem in judge(_document(GRANT | changes))[1]}
    assert message in found[path]


def test_a_grant_is_read_back_from_the_log_as_it_was_declared() -> None:
    grant = Grant.model_validate(GRANT)
    state = MeshState()
    value = grant.model_dump(mode="json")
    record = StateRecord(id=make_id("x"), time=NOW, noun="grant", value=value)
    state.apply(grant.key, codec.encode(record), 0)
    assert state.get(consent.key_of(grant.account, grant.from_account)) == grant
