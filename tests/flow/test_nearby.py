"""`regmesh nearby` and `regmesh up --gateway`, as a user types them, over control's API."""

import asyncio
import re
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh.node.cli import app
from tests.support import parts
from tests.support.mesh_site import MeshSite, mesh_site

REGIONS = [
    {"name": "beijing", "jurisdiction": "cn", "links": [{"to": "shanghai", "cost": 3}]},
    {"name": "shanghai", "jurisdiction": "cn"},
    {"name": "frankfurt", "jurisdiction": "global"},
]


def instance(name: str, region: str, port: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "account": "game", "region": region, "url": f"http://127.0.0.1:{port}", **more}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[MeshSite]:
    async with mesh_site(tmp_path) as found:
        await found.apply(
            {
                "regions": REGIONS,
                "instances": [
                    instance("z", "beijing", 5001, domain="hub.example.com"),
                    instance("a", "beijing", 5003, domain="hub.example.com", account="other"),
                    instance("eu", "frankfurt", 5004, domain="hub.example.com"),
                    instance("none", "shanghai", 5005),
                ],
                "replicas": [{"instance": "z", "region": "shanghai", "url": "http://127.0.0.1:5002"}],
            }
        )
        yield found


async def run(site: MeshSite, *arguments: str) -> tuple[int, str, str]:
    done = await asyncio.to_thread(parts.run_regmesh, "nearby", *arguments, "--server", site.url)
    return done.returncode, done.stdout, done.stderr


async def test_hosts_toml_has_the_places_of_the_jurisdiction_nearest_first_in_the_order_of_listing(
    site: MeshSite,
) -> None:
    code, out, _ = await run(site, "hosts-toml", "--region", "shanghai")
    assert code == 0
    assert list(tomllib.loads(out)["host"]) == [f"http://127.0.0.1:{port}" for port in (5002, 5001)]
    assert "# omitted: instance a is of another account, which needs a gateway" in out
    code, out, _ = await run(
        site, "hosts-toml", "--region", "frankfurt", "--gateway", "https://gw.example.com"
    )
    assert list(tomllib.loads(out)["host"]) == ["https://gw.example.com", "http://127.0.0.1:5004"]


async def test_dns_has_the_places_of_the_first_instance(site: MeshSite) -> None:
    code, out, _ = await run(site, "dns", "--region", "shanghai")
    assert code == 0
    assert [line for line in out.splitlines() if not line.startswith(";")] == [
        "$TTL 60", "hub.example.com. IN A 127.0.0.1",
    ]  # fmt: skip


async def test_errors_of_nearby_say_what_to_do(site: MeshSite) -> None:
    code, _, err = await run(site, "dns", "--region", "nowhere")
    assert (code, "no region is named 'nowhere'" in err) == (2, True)
    code, _, err = await run(site, "dns", "--region", "shanghai", "--domain", "other.example.com")
    assert (code, "has the domain 'other.example.com'" in err) == (2, True)
    await site.apply({"instances": [instance("none", "shanghai", 5005, domain="second.example.com")]})
    code, _, err = await run(site, "dns", "--region", "shanghai")
    assert (code, "--domain: hub.example.com, second.example.com" in err) == (2, True)


@pytest.mark.parametrize("text", ["shanghai", "shanghai=8083", "Shanghai=127.0.0.1:8083"])
def test_an_invalid_gateway_option_of_up_is_refused_before_anything_runs(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text("regions: [{name: shanghai, jurisdiction: cn}]\n")
    done = parts.run_regmesh("up", "-f", str(file), "--data", str(tmp_path / "data"), "--gateway", text)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("regmesh: ")
    assert not (tmp_path / "data").exists()


PAGE = (Path(__file__).parent.parent.parent / "docs" / "nearby.md").read_text()


async def test_the_examples_of_the_page_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    commands = re.findall(r"^regmesh ([a-z-]+)([^>#\n]*)", PAGE, re.MULTILINE)
    assert {word for word, _ in commands} == {"gateway", "up", "nearby"}
    async with mesh_site(tmp_path) as site:
        await site.apply(yaml.safe_load(shown))
        for word, options in commands:
            if word == "nearby":
                code, out, err = await run(site, *options.split())
                assert (code, "hub.example.com" in out) == (0, True), err
            else:
                assert await asyncio.to_thread(app.run, [word, "--help"]) == 0
                known = capsys.readouterr().out
                assert all(option in known for option in re.findall(r"--[a-z-]+", options)), options
