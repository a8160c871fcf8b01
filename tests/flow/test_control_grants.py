"""Grants through the API: put, shown, deleted, and what is said of a rule that waits for one."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.control_site import MESH, Site, control_site

GRANT = {"account": "sub", "from": "game", "namespaces": ["base/**"]}
TWO_ACCOUNTS: dict[str, Any] = MESH | {
    "instances": [MESH["instances"][0], MESH["instances"][1] | {"account": "sub"}]
}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with control_site(tmp_path) as found:
        yield found


async def test_a_rule_without_a_grant_is_taken_with_a_note_until_there_is_one(site: Site) -> None:
    for dry_run in ("?dry_run=true", "", ""):
        status, reported = await site.call("POST", f"/api/v1/apply{dry_run}", TWO_ACCOUNTS)
        assert status == 200
        notes = {item["key"]: item["note"] for item in reported["items"] if "note" in item}
        assert list(notes) == ["rule/release-to-eu"]
        assert "until account 'sub' declares a grant for 'game'" in notes["rule/release-to-eu"]
    status, reported = await site.call("POST", "/api/v1/apply", TWO_ACCOUNTS | {"grants": [GRANT]})
    assert [item["key"] for item in reported["items"] if "note" in item] == []
    assert {item["key"]: item["change"] for item in reported["items"]}["grant/sub:game"] == "created"


async def test_put_get_list_and_delete_by_the_names_of_both_accounts(site: Site) -> None:
    await site.call("POST", "/api/v1/apply", TWO_ACCOUNTS)
    path = "/api/v1/grants/sub:game"
    assert (await site.call("PUT", path, GRANT))[0] == 201
    shown = {"name": "sub:game"} | GRANT
    assert await site.call("GET", path) == (200, shown)
    assert await site.call("PUT", path, shown) == (200, shown)  # what is got can be put
    assert (await site.call("GET", "/api/v1/grants"))[1] == {"items": [shown], "next": None}
    assert await site.call("DELETE", path) == (204, None)
    assert (await site.call("GET", path))[0] == 404


async def test_a_grant_that_is_not_the_one_of_its_path_is_refused(site: Site) -> None:
    await site.call("POST", "/api/v1/apply", TWO_ACCOUNTS)
    status, reported = await site.call("PUT", "/api/v1/grants/game:sub", GRANT)
    assert status == 400
    assert "is named sub:game" in reported["error"]["problems"][0]["message"]
