"""Who may serve, and in which order: never across a border, nearest first, in the order of listing on a clash."""

import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dns.zone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.gateway.client_config import dns_zone, hosts_toml
from mesh.gateway.nearest import GetProbeResult, NearestPlaces, ProbeResult, RankedInstance
from mesh.rules import boundary
from mesh.rules.state import MeshState
from mesh.rules.validation import declarations
from schemas import codec
from schemas.envelope import make_id
from schemas.names import PlaceName, Region
from schemas.state import StateRecord

HUB = "hub.example.com"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOMES = {"near": "shanghai", "middle": "beijing", "far": "chengdu", "abroad": "frankfurt"}


def mesh(document: Mapping[str, Any]) -> MeshState:
    state = MeshState()
    placed, problems = declarations.judge(document)
    assert problems == []
    for rev, item in enumerate(placed):
        record = StateRecord(
            id=make_id(rev),
            time=NOW,
            noun=item.thing.noun,
            value=item.thing.model_dump(mode="json"),
            position=rev,
        )
        state.apply(item.thing.key, codec.encode(record), rev)
    return state


def document(costs: Mapping[str, int] | None = None, urls: Mapping[str, str] | None = None) -> dict[str, Any]:
    """An instance in Beijing, replicas in Shanghai and Chengdu; another account's instance behind the border."""
    regions = [
        {
            "name": name, "jurisdiction": "global" if name == "frankfurt" else "cn",
            "links": [{"to": "shanghai", "cost": (costs or {})[name]}] if name in (costs or {}) else [],
        }
        for name in ("beijing", "shanghai", "chengdu", "frankfurt")
    ]  # fmt: skip
    url = {name: f"http://10.0.0.{number}:5000" for number, name in enumerate(HOMES.values(), 1)} | (
        urls or {}
    )
    return {
        "regions": regions,
        "instances": [
            {"name": "cn", "account": "game", "region": "beijing", "url": url["beijing"], "domain": HUB},
            {"name": "eu", "account": "team", "region": "frankfurt", "url": url["frankfurt"], "domain": HUB},
        ],
        "replicas": [
            {"instance": "cn", "region": name, "url": url[name]} for name in ("shanghai", "chengdu")
        ],
    }


def ranked(
    state: MeshState, domain: str, region: Region, probe_result: GetProbeResult
) -> list[RankedInstance]:
    return NearestPlaces(state, region).ranked(domain, probe_result)


def order(state: MeshState, region: str, **probed: ProbeResult) -> list[list[str]]:
    by_place = {name.replace("_at_", "@"): it for name, it in probed.items()}
    found = ranked(state, HUB, Region(region), lambda name: by_place.get(name, ProbeResult()))
    return [[candidate.place.name for candidate in one.candidates] for one in found]


def test_the_own_region_is_nearest_then_the_cheapest_link() -> None:
    costs = {"beijing": 20, "chengdu": 10}
    assert order(mesh(document(costs)), "shanghai") == [["cn@shanghai", "cn@chengdu", "cn"]]
    costs = {"beijing": 5, "chengdu": 10}
    assert order(mesh(document(costs)), "shanghai") == [["cn@shanghai", "cn", "cn@chengdu"]]


def test_without_a_declared_cost_the_round_trip_decides() -> None:
    state = mesh(document())
    probed = {"cn": ProbeResult(round_trip_ms=30), "cn_at_chengdu": ProbeResult(round_trip_ms=4)}
    assert order(state, "shanghai", **probed) == [["cn@shanghai", "cn@chengdu", "cn"]]
    probed["cn_at_chengdu"] = ProbeResult(round_trip_ms=40)
    assert order(state, "shanghai", **probed) == [["cn@shanghai", "cn", "cn@chengdu"]]


def test_places_that_are_down_come_last() -> None:
    down = {"cn_at_shanghai": ProbeResult(up=False)}
    assert order(mesh(document({"beijing": 1, "chengdu": 2})), "shanghai", **down) == [
        ["cn", "cn@chengdu", "cn@shanghai"]
    ]


def test_the_border_holds_in_both_directions() -> None:
    state = mesh(document())
    assert order(state, "frankfurt") == [["eu"]]
    assert {place.name for place in NearestPlaces(state, Region("shanghai")).places()} == {
        "cn",
        "cn@shanghai",
        "cn@chengdu",
    }
    assert order(state, "nowhere") == []
    assert NearestPlaces(state, Region("nowhere")).is_declared(HUB)
    assert not NearestPlaces(state, Region("nowhere")).is_declared("other.example.com")


@given(
    st.lists(st.tuples(st.sampled_from(sorted(HOMES.values())), st.booleans()), min_size=1, max_size=6),
    st.sampled_from(sorted(HOMES.values())),
    st.dictionaries(st.integers(0, 5), st.tuples(st.booleans(), st.none() | st.floats(0, 1000))),
)
def test_no_ranking_has_a_place_of_another_jurisdiction_or_a_place_twice(
    homes: list[tuple[str, bool]], region: str, probed_numbers: dict[int, tuple[bool, float | None]]
) -> None:
    instances = [
        {
            "name": f"i{n}", "account": "a", "region": home, "url": f"http://10.0.1.{n + 1}",
            "domain": HUB if ours else None,
        }
        for n, (home, ours) in enumerate(homes)
    ]  # fmt: skip
    state = mesh(document() | {"instances": instances, "replicas": []})
    probed = {PlaceName(f"i{n}"): ProbeResult(*it) for n, it in probed_numbers.items()}
    found = ranked(state, HUB, Region(region), lambda name: probed.get(name, ProbeResult()))
    places = [candidate.place for one in found for candidate in one.candidates]
    assert [it.name for it in places] == [
        f"i{n}" for n, (home, ours) in enumerate(homes)
        if ours and boundary.crossing(state, Region(home), Region(region)) is None
    ]  # fmt: skip


def test_later_declarations_take_effect_at_once() -> None:
    state = mesh(document({"beijing": 5, "chengdu": 10}))
    nearest = NearestPlaces(state, Region("shanghai"))

    def names() -> list[str]:
        (found,) = nearest.ranked(HUB, lambda _: ProbeResult())
        return [it.place.name for it in found.candidates]

    assert names() == ["cn@shanghai", "cn", "cn@chengdu"]
    moved = {"name": "beijing", "jurisdiction": "global"}
    record = StateRecord(id=make_id("moved"), time=NOW, noun="region", value=moved)
    state.apply("region/beijing", codec.encode(record), 100)
    assert names() == ["cn@shanghai", "cn@chengdu"]
    state.apply("replica/cn@shanghai", None, 101)
    assert names() == ["cn@chengdu"]


def test_hosts_toml_is_what_containerd_reads() -> None:
    found = ranked(
        mesh(document({"beijing": 1, "chengdu": 2})), HUB, Region("shanghai"), lambda _: ProbeResult()
    )
    text = hosts_toml(HUB, Region("shanghai"), found, "http://10.9.9.9:8083/")
    read = tomllib.loads(text)
    assert read["server"] == f"https://{HUB}"
    assert list(read["host"]) == [
        "http://10.9.9.9:8083", "http://10.0.0.1:5000", "http://10.0.0.2:5000", "http://10.0.0.3:5000",
    ]  # fmt: skip
    assert all(it == {"capabilities": ["pull", "resolve"]} for it in read["host"].values())


def records(text: str) -> list[str]:
    """As a name server loads it, in a zone of its own."""
    head = "@ 60 IN SOA ns admin 1 60 60 60 60\n@ 60 IN NS ns\nns 60 IN A 10.1.1.1\n"
    loaded = dns.zone.from_text(head + text, origin="example.com.", relativize=False)
    node = loaded.get_node(f"{HUB}.")
    return [rdata.to_text() for rdataset in (node.rdatasets if node else []) for rdata in rdataset]


@pytest.mark.parametrize(
    ("urls", "active", "comments"),
    [
        ({}, ["10.0.0.1", "10.0.0.2", "10.0.0.3"], ["at port 5000"]),
        (
            {"beijing": "https://[2001:db8::7]"},
            ["10.0.0.1", "10.0.0.3", "2001:db8::7"],
            ["; cn in beijing\n"],
        ),
        ({"beijing": "https://cn.example.com"}, ["10.0.0.1", "10.0.0.3"], ["CNAME cn.example.com."]),
        ({"shanghai": "https://sh.example.com"}, ["sh.example.com."], ["; hub.example.com. IN A 10.0.0.2"]),
        ({"shanghai": "https://10.0.0.9", "beijing": "http://10.0.0.9:5000"}, ["10.0.0.9", "10.0.0.3"], []),
    ],
)
def test_a_name_server_can_load_the_zone(
    urls: dict[str, str], active: list[str], comments: list[str]
) -> None:
    numbered = {
        "beijing": "http://10.0.0.2:5000",
        "shanghai": "http://10.0.0.1:5000",
        "chengdu": "http://10.0.0.3:5000",
    }
    state = mesh(document({"beijing": 1, "chengdu": 2}, numbered | urls))
    text = dns_zone(HUB, Region("shanghai"), ranked(state, HUB, Region("shanghai"), lambda _: ProbeResult()))
    assert sorted(records(text)) == sorted(active)
    assert all(comment in text for comment in comments)


def test_dns_names_the_first_instance_and_says_that_another_needs_a_gateway() -> None:
    both = document()
    both["instances"].append(
        {"name": "zz", "account": "team", "region": "shanghai", "url": "http://10.0.0.9", "domain": HUB}
    )
    text = dns_zone(
        HUB, Region("shanghai"), ranked(mesh(both), HUB, Region("shanghai"), lambda _: ProbeResult())
    )
    assert "10.0.0.9" not in records(text)
    assert "omitted: instance zz" in text
