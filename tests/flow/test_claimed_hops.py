"""A pusher cannot hide a push by claiming that it has come a long way."""

from pathlib import Path

from aiohttp import ClientSession

from tests.support import images
from tests.support.mesh_site import APP, mesh_site, until


async def test_a_push_that_claims_too_many_hops_is_reported(tmp_path: Path) -> None:
    async with mesh_site(tmp_path) as site:
        first, second = await site.registry("first"), await site.registry("second")
        places = {"first": ("oslo", first.url), "second": ("rome", second.url)}
        await site.apply(
            {
                "regions": [{"name": region, "jurisdiction": "eu"} for region, _ in places.values()],
                "instances": [
                    {"name": name, "account": "game", "region": region, "url": url}
                    for name, (region, url) in places.items()
                ],
                "rules": [{"name": "all", "source": "first", "destination": "second"}],
            }
        )
        await site.start_agent("rome")
        image = images.image(layers=[b"hidden"])
        await site.push("first", "known", image)  # its blobs are there then
        headers = {
            "User-Agent": "regmesh/0.1.0 (origin=first; hops=8)",
            "Content-Type": image.manifest.media_type,
        }
        async with (
            ClientSession() as session,
            session.put(
                f"{first.url}/v2/{APP}/manifests/hidden", data=image.manifest.body, headers=headers
            ) as answer,
        ):
            assert answer.status == 201
        entries = await until(lambda: site.logs(tag="hidden"))
        assert [(entry["status"], entry["error"]["code"]) for entry in entries] == [("Skipped", "hops")]
        assert await site.digest("second", "hidden") is None
