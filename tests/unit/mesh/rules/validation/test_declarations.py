"""What an operator declares is judged whole: every problem at once, each with its path."""

from typing import Any

import pytest

from mesh.rules.validation.declarations import check_removal, judge


def _document(**changes: Any) -> dict[str, Any]:
    return {
        "regions": [
            {"name": "beijing", "jurisdiction": "cn"},
            {"name": "frankfurt", "jurisdiction": "global"},
        ],
        "instances": [
            {"name": "cn", "account": "game", "region": "beijing", "url": "http://127.0.0.1:5001"},
            {"name": "eu", "account": "game", "region": "frankfurt", "url": "http://127.0.0.1:5002"},
        ],
        "rules": [{"name": "release", "source": "cn", "destination": "eu"}],
        **changes,
    }


def _problems(document: object, declared: Any = ()) -> dict[str, str]:
    return {problem.where: problem.message for problem in judge(document, declared)[1]}


def test_a_sound_document_has_no_problem_and_gives_its_things() -> None:
    placed, problems = judge(_document())
    assert problems == []
    assert [item.thing.key for item in placed] == [
        "region/beijing", "region/frankfurt", "instance/cn", "instance/eu", "rule/release",
    ]  # fmt: skip


def test_an_empty_file_declares_nothing() -> None:
    assert judge(None) == ([], [])


def test_all_problems_are_reported_at_once_with_their_paths() -> None:
    document = _document(
        regions=[{"name": "Beijing", "jurisdiction": "cn"}],
        instances=[
            {"name": "cn", "account": "game", "region": "frankfort", "url": "http://u:p@h/", "domian": 1}
        ],
        rules=[
            {
                "name": "r",
                "source": "cn",
                "destination": "us",
                "filters": [{"type": "name", "value": "a/{b"}],
            },
            {"name": "s", "source": "cn", "filters": [{"type": "Tag", "value": "x"}], "conflict": "lww"},
        ],
        rulse=[],
    )
    found = _problems(document)
    assert "region name" in found["regions[0].name"]
    assert "no region is named 'frankfort'" in found["instances[0].region"]
    assert "must not carry a user or password" in found["instances[0].url"]
    assert "unknown field 'domian'" in found["instances[0].domian"]
    assert "no instance is named 'us'" in found["rules[0].destination"]
    assert "not closed" in found["rules[0].filters[0].value"]
    assert "did you mean 'tag'" in found["rules[1].filters[0].type"]
    assert "planned but not built" in found["rules[1].conflict"]
    assert found["rules[1].destination"] == "is required"
    assert "did you mean 'rules'" in found["rulse"]


def test_names_declared_before_count() -> None:
    declared = [item.thing for item in judge(_document())[0]]
    assert _problems({"rules": [{"name": "two", "source": "cn", "destination": "eu"}]}, declared) == {}


@pytest.mark.parametrize(
    ("rule", "path", "message"),
    [
        ({"source": "cn", "destination": "cn"}, "rules[0].destination", "is the source itself"),
        (
            {
                "source": "cn",
                "destination": "eu",
                "filters": [{"type": "resource", "value": "image"}, {"type": "resource", "value": "chart"}],
            },
            "rules[0].filters[1].value",
            "can never both hold",
        ),
    ],
)
def test_rules_that_cannot_work_are_refused(rule: dict[str, Any], path: str, message: str) -> None:
    document = _document(rules=[{"name": "r", **rule}])
    document["instances"].append(
        {"name": "other", "account": "team-b", "region": "beijing", "url": "http://127.0.0.1:5003"}
    )
    assert message in _problems(document)[path]


def test_cycles_are_refused_also_with_what_was_declared_before() -> None:
    declared = [item.thing for item in judge(_document())[0]]
    found = _problems({"rules": [{"name": "back", "source": "eu", "destination": "cn"}]}, declared)
    assert "eu -> cn -> eu" in found["rules[0].destination"]


def test_a_rule_that_is_not_enabled_closes_no_cycle() -> None:
    declared = [item.thing for item in judge(_document())[0]]
    back = {"name": "back", "source": "eu", "destination": "cn"}
    assert _problems({"rules": [{**back, "enabled": False}]}, declared) == {}
    there = {"name": "release", "source": "cn", "destination": "eu", "enabled": False}
    assert _problems({"rules": [there, back]}, declared) == {}  # the other way round from now on


@pytest.mark.parametrize("trigger", [{"type": "manual"}, {"type": "scheduled", "cron": "0 3 * * *"}])
def test_deletion_is_refused_for_rules_without_events(trigger: dict[str, str]) -> None:
    rule = {"name": "r", "source": "cn", "destination": "eu", "trigger": trigger, "deletion": True}
    assert "follows events" in _problems(_document(rules=[rule]))["rules[0].deletion"]


def test_two_things_of_one_name_are_refused() -> None:
    document = _document()
    document["rules"] *= 2
    assert "rules[0] already" in _problems(document)["rules[1].name"]


@pytest.mark.parametrize("document", [[], "text", 7, {"rules": {}}, {"rules": ["x"]}, {1: []}])
def test_documents_of_any_shape_are_reported_as_problems(document: object) -> None:
    assert judge(document)[1]


def test_a_thing_in_use_cannot_be_removed() -> None:
    declared = [item.thing for item in judge(_document())[0]]
    assert (
        check_removal("region/beijing", declared)
        == "region/beijing is used by instance/cn; remove that first"
    )
    assert check_removal("instance/eu", declared) == "instance/eu is used by rule/release; remove that first"
    assert check_removal("rule/release", declared) is None


def test_all_users_of_a_thing_are_reported_at_once() -> None:
    document = _document()
    document["rules"] += [{**document["rules"][0], "name": "again", "destination_namespace": "again"}]
    declared = [item.thing for item in judge(document)[0]]
    message = "instance/eu is used by rule/again, rule/release; remove those first"
    assert check_removal("instance/eu", declared) == message


@pytest.mark.parametrize(
    ("more", "where", "what"),
    [
        ({"filters": {"type": "name", "value": "x"}}, "filters", "must be a list"),
        (
            {"filters": [{"type": "resource", "value": "images"}]},
            "filters[0].value",
            "'artifact'; did you mean 'image'?",
        ),
        (
            {"filters": [{"type": "tag", "value": "x", "decoration": "exclude"}]},
            "filters[0].decoration",
            "must be 'matches' or 'excludes'; did you mean 'excludes'?",
        ),
        (
            {"filters": [{"type": "resource", "value": "image", "mode": "full"}]},
            "filters[0].mode",
            "a filter of type resource has no 'mode'",
        ),
        (
            {"trigger": {"type": "manual", "cron": "* * * * *"}},
            "trigger.cron",
            "a trigger of type manual has no 'cron'",
        ),
        ({"trigger": "scheduled"}, "trigger", "must be a mapping"),
        ({"enabled": "maybe"}, "enabled", "must be true or false"),
        ({"speed": "fast"}, "speed", "must be a whole number"),
        ({"name": 7}, "name", "must be text; quotes make it that"),
    ],
)
def test_a_wrong_type_is_reported_in_the_terms_of_yaml(more: dict[str, Any], where: str, what: str) -> None:
    document = _document()
    document["rules"] = [{**document["rules"][0], **more}]
    assert _problems(document)[f"rules[0].{where}"].endswith(what)


def test_a_list_with_a_wrong_item_is_not_called_empty() -> None:
    hook = {"name": "ci", "url": "https://ci.example.com", "event_types": ["replication.ok"]}
    found = _problems(_document(webhooks=[hook]))
    assert list(found) == ["webhooks[0].event_types[0]"]
    assert _problems(_document(webhooks=[{**hook, "event_types": []}])) == {
        "webhooks[0].event_types": "must not be empty"
    }


def test_a_rule_to_its_own_source_is_reported_once() -> None:
    document = _document()
    document["rules"] = [
        {"name": "self", "source": "cn", "destination": "cn"},
        {"name": "on", "source": "eu", "destination": "cn"},
    ]
    assert _problems(document) == {"rules[0].destination": "is the source itself"}


@pytest.mark.parametrize(
    ("link", "where", "what"),
    [
        ({"to": "frankfort", "speed": 1_000_000}, "to", "named 'frankfort'; declared are: beijing, frankfurt"),
        ({"to": "beijing"}, "to", "is the region itself"),
        ({"to": "frankfurt", "speed": 0}, "speed", "greater than or equal to 1024"),
        ({"to": "frankfurt", "speed": "1MiB"}, "speed", "whole number"),
        ({"to": "frankfurt", "sped": 2048}, "sped", "did you mean 'speed'?"),
        ({"to": "frankfurt", "cost": -3}, "cost", "greater than or equal to 0"),
    ],
)  # fmt: skip
def test_a_wrong_link_is_reported(link: dict[str, Any], where: str, what: str) -> None:
    regions = [
        {"name": "beijing", "jurisdiction": "cn", "links": [link]},
        {"name": "frankfurt", "jurisdiction": "global"},
    ]
    assert what in _problems(_document(regions=regions))[f"regions[0].links[0].{where}"]


def test_a_region_with_links_to_it_cannot_be_removed() -> None:
    regions = [
        {"name": "beijing", "jurisdiction": "cn", "links": [{"to": "paris", "speed": 4096}]},
        {"name": "frankfurt", "jurisdiction": "global"},
        {"name": "paris", "jurisdiction": "global"},
    ]
    placed, problems = judge(_document(regions=regions))
    assert problems == []
    message = check_removal("region/paris", [item.thing for item in placed])
    assert message == "region/paris is used by region/beijing; remove that first"


REPLICAS = {
    "regions": [{"name": name, "jurisdiction": "cn"} for name in ("beijing", "shanghai", "chengdu")],
    "instances": [
        {"name": "cn", "account": "game", "region": "beijing", "url": "https://Registry.example.com"},
        {"name": "raw", "account": "game", "region": "beijing", "url": "http://[2001:DB8::1]"},
    ],
}


@pytest.mark.parametrize(
    "url",
    [
        "https://registry.example.com", "https://REGISTRY.example.com:443", "https://registry.example.com.",
        "http://[2001:db8::1]:80",
    ],
)  # fmt: skip
def test_a_replica_in_its_instances_own_registry_is_refused_for_any_spelling_of_its_url(url: str) -> None:
    """It would be filled from itself, and what is deleted as its own would be the instance's."""
    found = _problems(REPLICAS | {"replicas": [{"instance": "cn", "region": "shanghai", "url": url}]})
    assert "is the registry of instance/" in found["replicas[0].url"]


def test_two_ports_of_a_host_are_two_registries() -> None:
    replica = {"instance": "cn", "region": "shanghai", "url": "https://registry.example.com:5000"}
    assert _problems(REPLICAS | {"replicas": [replica]}) == {}


def test_a_webhook_with_an_invalid_port_is_refused() -> None:
    found = _problems({"webhooks": [{"name": "ci", "url": "http://127.0.0.1:99999/hook"}]})
    assert "Port out of range" in found["webhooks[0].url"]


@pytest.mark.parametrize(
    "host", ["a" * 64 + ".example", "a..example", ".example", "a b", "a;b", "a%00b", "a$(b)"]
)
def test_a_url_with_an_invalid_host_is_refused(host: str):
    instance = {"name": "cn", "account": "game", "region": "beijing", "url": f"http://{host}:5000"}
    regions = [{"name": "beijing", "jurisdiction": "cn"}]
    _, problems = judge({"regions": regions, "instances": [instance]})
    assert [(it.where, "must name a host" in it.message) for it in problems] == [("instances[0].url", True)]


@pytest.mark.parametrize(
    "host", ["registry_1.example.", "xn--e1afmkfd.example", "\u044f.example", "[::1]", "10.0.0.1"]
)
def test_a_url_with_a_valid_host_is_accepted(host: str):
    instance = {"name": "cn", "account": "game", "region": "beijing", "url": f"https://{host}"}
    regions = [{"name": "beijing", "jurisdiction": "cn"}]
    assert judge({"regions": regions, "instances": [instance]})[1] == []


def test_only_the_declaration_that_separates_a_replica_from_its_instance_is_blamed() -> None:
    before = _document(
        regions=[
            {"name": name, "jurisdiction": kind}
            for name, kind in (("beijing", "cn"), ("shanghai", "cn"), ("frankfurt", "global"))
        ],
        replicas=[{"instance": "cn", "region": "shanghai", "url": "http://127.0.0.1:9"}],
    )
    placed, problems = judge(before)
    assert problems == []
    declared = [item.thing for item in placed]
    regions = [{"name": "frankfurt", "jurisdiction": "eu"}, {"name": "beijing", "jurisdiction": "global"}]
    eu = next(it for it in before["instances"] if it["name"] == "eu")
    assert list(_problems({"regions": regions, "instances": [eu]}, declared)) == ["regions[1]"]
    taken = {**eu, "url": "http://127.0.0.1:9"}
    assert list(_problems({"instances": [taken]}, declared)) == ["instances[0]"]
