"""The list of repositories: pages, refusals and invalid names."""

from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from aiohttp import web

from mesh.errors import Denied, NotFound, RegistryError, Rejected, UnreadableNames
from mesh.registry.client import RegistryClient, open_endpoint
from schemas.completions import Side
from schemas.names import Repository, Tag
from tests.support import images, registries
from tests.support.registries import Stub


@pytest.fixture(params=["builtin", pytest.param("distribution", marks=pytest.mark.real("docker-registry"))])
async def registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RegistryClient]:
    async with getattr(registries, request.param)(tmp_path) as url:
        endpoint = open_endpoint("place", url, None)
        yield endpoint.registry(Side.SOURCE)
        await endpoint.close()


async def test_all_repositories_are_listed(registry: RegistryClient) -> None:
    assert [name async for name in registry.repositories()] == []
    names = [Repository(f"team-{number}/app") for number in range(5)]
    for name in names:
        await images.push(registry, name, Tag("v1"), images.image(layers=[b"layer"]))
    assert [name async for name in registry.repositories()] == names


async def _listed(stub: Stub) -> list[Repository]:
    endpoint = open_endpoint("place", stub.url, None)
    try:
        return [name async for name in endpoint.registry(Side.SOURCE).repositories()]
    finally:
        await endpoint.close()


async def test_the_next_page_is_followed_to_the_end() -> None:
    async with registries.stub() as stub:

        async def answer(request: web.Request) -> web.Response:
            if "last" in request.query:
                return web.json_response({"repositories": ["c"]})
            link = {"Link": '</v2/_catalog?n=2&last=b>; rel="next"'}
            return web.json_response({"repositories": ["a", "b"]}, headers=link)

        stub.answer = answer
        assert await _listed(stub) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, b"", Denied),
        (403, b"", Denied),
        (404, b"", NotFound),
        (405, b"", Rejected),
        (200, b"<html>", Rejected),
        (200, b"{}", Rejected),
        (200, b'{"repositories": ["../etc"]}', Rejected),
    ],
)
async def test_a_refusal_or_an_invalid_answer_is_not_an_empty_list(
    status: int, body: bytes, error: type[RegistryError]
) -> None:
    async with registries.stub() as stub:
        stub.says(status, body)
        with pytest.raises(error):
            await _listed(stub)


async def test_invalid_names_hide_no_valid_one_and_are_reported_at_the_end() -> None:
    strange = ["Team/App", "a\u202e\n" + "x" * 60, "../etc", "b c", "Y" * 300]

    async def answer(request: web.Request) -> web.Response:
        if "last" in request.query:
            return web.json_response({"repositories": ["Team/App", "c"]})
        link = {"Link": '</v2/_catalog?n=2&last=b>; rel="next"'}
        return web.json_response({"repositories": ["a", *strange, "b"]}, headers=link)

    async with registries.stub() as stub:
        stub.answer = answer
        endpoint = open_endpoint("place", stub.url, None)
        listed = endpoint.registry(Side.SOURCE).repositories()
        assert [await anext(listed) for _ in range(3)] == ["a", "b", "c"]
        with pytest.raises(UnreadableNames) as caught:
            await anext(listed)
        await endpoint.close()
    assert (caught.value.count, caught.value.names) == (5, tuple(strange[:4]))
    reported = caught.value.as_task_error()
    assert (reported.code, reported.side) == ("unreadable_names", Side.SOURCE)
    assert reported.message.startswith("5 names are not valid for a repository or tag: 'Team/App', 'a")
    assert reported.message.endswith("'../etc', ... (in /v2/_catalog)")
    assert reported.message.isprintable()
    assert "x" * 40 not in reported.message


async def test_of_many_invalid_names_some_are_reported() -> None:
    async with registries.stub() as stub:
        stub.says(200, orjson.dumps({"repositories": [f"No {number}" for number in range(5000)]}))
        with pytest.raises(UnreadableNames) as caught:
            await _listed(stub)
    assert (caught.value.count, len(caught.value.names)) == (5000, 100)
