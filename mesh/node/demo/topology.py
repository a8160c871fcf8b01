"""The declarations of the demo: an instance in Beijing and one in Frankfurt, with replicas on each side of a border."""

from collections.abc import Mapping
from typing import Any

CN, EU, DOMAIN = "game-cn", "game-eu", "hub.game.example"
MAINLAND = ("shanghai", "chengdu", "guangzhou")
OUTSIDE = ("siliconvalley", "virginia", "mumbai", "singapore")
RELAY_SECRET = "DEMO_RELAY"  # noqa: S105  # the name of the secret

GLOBAL_TAG, MAINLAND_TAG = "v1.0-global", "v1.0-mainland"
BOTH_TAGS = (MAINLAND_TAG, GLOBAL_TAG)

MIB = 1024 * 1024
_LINE = 8 * MIB  # bytes per second of each link, slow enough to watch
# Milliseconds, in both directions.
_COSTS = {
    ("beijing", "shanghai"): 25, ("beijing", "chengdu"): 35, ("beijing", "guangzhou"): 38,
    ("shanghai", "chengdu"): 34, ("shanghai", "guangzhou"): 28, ("chengdu", "guangzhou"): 30,
    ("beijing", "frankfurt"): 150,
    ("frankfurt", "virginia"): 88, ("frankfurt", "siliconvalley"): 148, ("frankfurt", "mumbai"): 112,
    ("frankfurt", "singapore"): 160, ("virginia", "siliconvalley"): 62, ("virginia", "mumbai"): 190,
    ("virginia", "singapore"): 215, ("siliconvalley", "mumbai"): 230, ("siliconvalley", "singapore"): 170,
    ("mumbai", "singapore"): 58,
}  # fmt: skip


def places() -> dict[str, str]:
    """Returns the region of every place."""
    return (
        {CN: "beijing"}
        | {f"{CN}@{region}": region for region in MAINLAND}
        | {EU: "frankfurt"}
        | {f"{EU}@{region}": region for region in OUTSIDE}
    )


def document(urls: Mapping[str, str]) -> dict[str, Any]:
    """Returns the mesh with the registries at `urls`, by place."""
    regions = places()
    return {
        "regions": [_region(name) for name in regions.values()],
        "instances": [
            {"name": name, "account": "game", "region": regions[name], "url": urls[name], "domain": DOMAIN}
            for name in (CN, EU)
        ],
        "replicas": [
            {"instance": name.partition("@")[0], "region": region, "url": urls[name]}
            for name, region in regions.items()
            if "@" in name
        ],
        "rules": [
            {
                "name": "release-to-eu",
                "source": CN,
                "destination": EU,
                "filters": [{"type": "name", "value": "game/**"}, {"type": "tag", "value": "*-global"}],
            }
        ],
    }


def _region(name: str) -> dict[str, Any]:
    both = _COSTS | {(other, one): cost for (one, other), cost in _COSTS.items()}
    links = [
        {"to": other, "cost": cost, "speed": _LINE}
        for (one, other), cost in sorted(both.items())
        if one == name
    ]
    inside = name == "beijing" or name in MAINLAND
    return {
        "name": name,
        "jurisdiction": "cn-mainland" if inside else "global",
        "links": links,
        "relay": {"secret": RELAY_SECRET},
    }
