"""Each folder of `examples/` holds a mesh.yaml that `regmesh apply` accepts and that declares what its page says."""

from pathlib import Path

import pytest

from mesh.node import mesh_file
from mesh.rules import naming
from mesh.rules.matching.compiled_rule import CompiledRule
from mesh.rules.validation import declarations
from schemas.declared import Declared
from schemas.grants import Grant
from schemas.names import Repository
from schemas.rules import EventBased, Rule, Scheduled
from schemas.topology import Instance, RegionDeclaration, Replica

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
FOLDERS = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())


def _declared(folder: str) -> dict[str, Declared]:
    file = mesh_file.read(EXAMPLES / folder / "mesh.yaml")
    mesh_file.check(file)
    return {placed.thing.key: placed.thing for placed in declarations.judge(file.document)[0]}


def _rule(declared: dict[str, Declared], name: str) -> CompiledRule:
    rule = declared[f"rule/{name}"]
    assert isinstance(rule, Rule)
    return CompiledRule(rule)


@pytest.mark.parametrize("folder", FOLDERS)
def test_apply_accepts_the_file_and_its_page_explains_every_rule(folder: str) -> None:
    page = (EXAMPLES / folder / "README.md").read_text()
    for key, thing in _declared(folder).items():
        if isinstance(thing, Rule):
            assert f"`{thing.name}`" in page or f"regmesh logs --rule {thing.name}" in page, key


def test_there_is_an_example_for_each_common_job() -> None:
    assert FOLDERS == [
        "disaster-recovery", "one-instance-many-regions", "promote-dev-to-prod", "share-base-images",
    ]  # fmt: skip


def test_promotion_takes_candidates_to_staging_and_only_releases_to_production() -> None:
    declared = _declared("promote-dev-to-prod")
    to_staging, to_production = _rule(declared, "dev-to-staging"), _rule(declared, "staging-to-prod")
    assert to_staging.rule.destination == to_production.rule.source == "staging"
    tags = ("v1.4.0-rc.1", "v1.4.0", "feature-x")
    assert [to_staging.wants("game/server", tag) for tag in tags] == [True, True, False]
    assert [to_production.wants("game/server", tag) for tag in tags] == [False, True, False]
    assert not to_staging.wants("tools/lint", "v1.4.0")
    assert to_production.rule.override is False
    assert isinstance(to_production.rule.trigger, EventBased)


def test_base_images_land_under_the_namespace_that_each_account_grants() -> None:
    declared = _declared("share-base-images")
    for name, account in (("base-to-shop", "shop"), ("base-to-games", "games")):
        rule = _rule(declared, name).rule
        assert naming.destination_of(rule, Repository("images/os/debian")) == "base/os/debian"
        grant = declared[f"grant/{account}:platform"]
        assert isinstance(grant, Grant)
        assert grant.namespaces == ("base/**",)
        instance = declared[f"instance/{rule.destination}"]
        assert isinstance(instance, Instance)
        assert instance.account == account
    assert not _rule(declared, "base-to-shop").wants("images/os/debian", "12-dev")


def test_one_instance_has_a_replica_in_every_other_region_of_its_jurisdiction() -> None:
    declared = _declared("one-instance-many-regions")
    regions = {it.name: it for it in declared.values() if isinstance(it, RegionDeclaration)}
    replicas = [it for it in declared.values() if isinstance(it, Replica)]
    assert {it.region for it in replicas} == regions.keys() - {"beijing"}
    assert {it.jurisdiction for it in regions.values()} == {"cn-mainland"}
    for region in regions.values():
        assert region.relay is not None
        assert {link.to for link in region.links} == regions.keys() - {region.name}
    instance = declared["instance/game"]
    assert isinstance(instance, Instance)
    assert instance.domain == "hub.example.com"


def test_the_standby_holds_everything_and_loses_nothing_that_is_deleted() -> None:
    declared = _declared("disaster-recovery")
    on_push, nightly = _rule(declared, "standby-on-push").rule, _rule(declared, "standby-nightly").rule
    assert on_push.filters == nightly.filters == ()
    assert (
        (on_push.source, on_push.destination) == (nightly.source, nightly.destination) == ("main", "standby")
    )
    assert not on_push.deletion
    assert not nightly.deletion
    assert on_push.backfill
    assert isinstance(on_push.trigger, EventBased)
    assert isinstance(nightly.trigger, Scheduled)
